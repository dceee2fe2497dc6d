"""A Debian machine under qemu, whose kernel has ESP: strongSwan and libreswan as they run in the field."""

from __future__ import annotations

import base64
import socket
import time
from pathlib import Path
from subprocess import CompletedProcess, run
from typing import Any, Self, TextIO

from tests.lab.lab import Namespace
from tests.lab.machine import COMMAND_TIMEOUT, Machine
from tests.lab.process import wait_until
from tests.lab.strongswan import parse_sas

PLACE = Path("build/guest")
BUILDER = Path("tests/lab/guest.sh")
BOOT_TIMEOUT = 1800.0
"""Seconds; it takes 25 on a quiet machine, all of it emulated; at a load of 25 it took 500."""

KERNEL_ARGUMENTS = "root=/dev/vda rw console=ttyS0 quiet net.ifnames=0 panic=-1 systemd.show_status=0"

STRONGSWAN_CONF = """
charon {
  load = random nonce openssl aes sha1 sha2 md5 hmac kdf gmp vici kernel-netlink socket-default updown
  i_dont_care_about_security_and_use_aggressive_mode_psk = yes
  install_routes = no
  filelog { log { path = /run/charon.log
    default = 1
    flush_line = yes } }
  plugins { vici { socket = unix:///run/charon.vici } }
}
"""


def build() -> None:
    """Make the guest's image, unless it is there. Raises subprocess.CalledProcessError."""
    run(["bash", str(BUILDER)], check=True)


class Guest(Machine):
    """One machine, joined to a namespace by a wire of its own: a tap there, `eth0` in the guest.

    Its disk is never written to: each start has the machine as it was built.
    """

    emulated = True

    def __init__(
        self,
        namespace: Namespace,
        address: str,
        inside: tuple[str, ...],
        systemd: bool = False,
        files: Path | None = None,
    ) -> None:
        """Boot it. `address` with its prefix length is the outer one, `inside` lie on its loopback.

        `systemd`: the whole system, where else there is nothing but the commands of the test. `files`: a
        directory whose content the guest has in /mnt.
        """
        device, first = "eth0", "" if systemd else " init=/usr/local/sbin/lab-agent"
        build()
        namespace.ip("tuntap", "add", device, "mode", "tap")
        namespace.ip("link", "set", device, "up")
        self._socket = namespace.lab.directory / f"guest-{namespace.label}"
        self._console = namespace.lab.directory / f"console-{namespace.label}"
        disk = self._disk(namespace.lab.directory, files) if files is not None else ()
        self._child = namespace.spawn(
            "qemu-system-x86_64", "-machine", "q35,accel=tcg", "-cpu", "max", "-smp", "1", "-m", "512",
            "-display", "none", "-nodefaults", *(() if systemd else ("-no-reboot",)),
            "-kernel", str(PLACE / "vmlinuz"), "-initrd", str(PLACE / "initrd.img"),
            "-append", KERNEL_ARGUMENTS + first,
            "-drive", f"file={PLACE / 'root.ext4'},if=virtio,format=raw,snapshot=on",
            *disk,
            "-netdev", f"tap,id=wire,ifname={device},script=no,downscript=no",
            "-device", "virtio-net-pci,netdev=wire", "-device", "virtio-rng-pci",
            "-serial", f"file:{self._console}",
            "-serial", f"unix:{self._socket},server=on,wait=off",
            log=f"qemu-{namespace.label}.log",
        )  # fmt: skip
        self._number = 0
        self._stream = self._connect()
        self.set_addresses(address, inside)
        self.run("sysctl -q -w net.ipv4.ip_forward=1")
        if files is not None:
            self.run("mount -o ro /dev/vdb /mnt")

    @staticmethod
    def _disk(place: Path, files: Path) -> tuple[str, ...]:
        """A second disk with these files."""
        image = place / "files.ext4"
        size = sum(path.stat().st_size for path in files.rglob("*") if path.is_file()) // 2**20 + 16
        run(["mke2fs", "-q", "-t", "ext4", "-d", str(files), str(image), f"{size}M"], check=True)
        return ("-drive", f"file={image},if=virtio,format=raw,readonly=on")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """The laboratory ends the machine; this closes the line to it."""
        for stream in self._stream:
            stream.close()
        self._serial.close()

    def _connect(self) -> tuple[TextIO, TextIO]:
        wait_until(lambda: self._socket.exists() or self._child.exit_code is not None, "qemu to start")
        self._serial = serial = socket.socket(socket.AF_UNIX)
        serial.settimeout(BOOT_TIMEOUT)
        serial.connect(str(self._socket))
        reader, writer = serial.makefile("r"), serial.makefile("w")
        try:
            answer = reader.readline()
        except TimeoutError:
            answer = ""
        if answer != "ready\n":
            for one in (reader, writer, serial):
                one.close()
            raise RuntimeError(f"the guest did not start:\n{self.console()}\n{self._child.output()}")
        return reader, writer

    def console(self) -> str:
        """What the guest's kernel has said."""
        return self._console.read_text(errors="replace") if self._console.exists() else ""

    def run(
        self, command: str, check: bool = True, timeout: float = COMMAND_TIMEOUT
    ) -> CompletedProcess[str]:
        reader, writer = self._stream
        self._serial.settimeout(timeout)
        self._number += 1
        writer.write(f"{self._number} {base64.b64encode(command.encode()).decode()}\n")
        writer.flush()
        number, code, output = [*reader.readline().rstrip("\n").split(" "), "", ""][:3]
        if number != str(self._number):
            raise RuntimeError(
                f"the guest answered {number!r} to command {self._number}: {self.console()[-2000:]}"
            )
        text = base64.b64decode(output).decode(errors="replace")
        if check and code != "0":
            raise RuntimeError(f"{command}\nended with {code} in the guest:\n{text}")
        return CompletedProcess(command, int(code), text, "")

    def reboot(self) -> None:
        """Only with `systemd`."""
        reader, writer = self._stream
        self._serial.settimeout(BOOT_TIMEOUT)
        self._number += 1
        writer.write(f"{self._number} {base64.b64encode(b'systemctl --no-block reboot').decode()}\n")
        writer.flush()
        # The answer may be cut off by the end of the one who gives it.
        while not reader.readline().endswith("ready\n"):
            pass

    def has_apparmor(self) -> bool:
        return True

    # --- strongSwan

    def start_strongswan(self, swanctl: str) -> None:
        """Start charon with kernel ESP and load a swanctl.conf."""
        self.write("/etc/strongswan.conf", STRONGSWAN_CONF)
        self.write("/etc/swanctl/lab.conf", swanctl)
        self.run("setsid /usr/lib/ipsec/charon >/run/charon.out 2>&1 </dev/null & sleep 0.1")
        self._await("test -S /run/charon.vici", "charon")
        self.swanctl("--load-all --noprompt --clear --file /etc/swanctl/lab.conf")

    def swanctl(self, arguments: str, check: bool = True) -> str:
        """Run swanctl in the guest."""
        return self.run(f"swanctl {arguments} --uri unix:///run/charon.vici", check=check).stdout

    def strongswan_sas(self) -> list[dict[str, Any]]:
        """strongSwan's IKE SAs with their children."""
        return list(parse_sas(self.swanctl("--list-sas --raw")))

    # --- libreswan

    def start_libreswan(self, conf: str, secrets: str) -> None:
        """Start pluto with an ipsec.conf and an ipsec.secrets."""
        setup = "config setup\n\tlogfile=/run/pluto.log\n\tikev1-policy=accept\n"
        self.write("/etc/ipsec.conf", f"{setup}{conf}")
        self.write("/etc/ipsec.secrets", secrets)
        self.run("mkdir -p /run/pluto /var/lib/ipsec/nss; ipsec initnss >/dev/null 2>&1 || true")
        self.run("ipsec pluto --config /etc/ipsec.conf --leak-detective")
        self._await("ipsec whack --status >/dev/null 2>&1", "pluto")

    # --- both

    def stop_peer(self) -> None:
        """End whichever peer runs, without a word to the other end, and remove what it left in the kernel."""
        self.run(
            "pkill -KILL -x charon; pkill -KILL -x pluto; sleep 0.2; rm -f /run/charon.* /run/pluto/*; true"
        )
        self.run("ip xfrm state flush; ip xfrm policy flush; true")

    def log(self) -> str:
        """What the peer has logged."""
        return self.run("tail -n 60 /run/charon.log /run/pluto.log 2>/dev/null", check=False).stdout

    def _await(self, test: str, what: str, seconds: float = COMMAND_TIMEOUT) -> None:
        deadline = time.monotonic() + seconds
        while self.run(test, check=False).returncode:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} does not answer in the guest:\n{self.log()}")
