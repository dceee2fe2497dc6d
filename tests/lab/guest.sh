#!/usr/bin/env bash
# Builds a small Debian machine for qemu in build/guest: a kernel with ESP of its own (which a namespace of
# this box does not have), strongSwan, and libreswan. Run again, it does nothing unless this file has changed.
set -euo pipefail
cd "$(dirname "$0")/../.."

place=build/guest
stamp=$place/$(sha256sum tests/lab/guest.sh | cut -c1-16)
[ ! -e "$stamp" ] || exit 0

tools=(qemu-system-x86 debootstrap e2fsprogs)
missing=()
for package in "${tools[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    echo "Installing ${missing[*]}"
    DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "${missing[@]}" >/dev/null
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
echo "Building the guest in $place, about four minutes"
packages=linux-image-amd64,systemd-sysv,iproute2,iputils-ping,kmod,procps,python3,nftables,man-db
# What a server has, and what Ansible asks of it.
packages+=,apparmor,bash-completion,sudo,openssh-server,python3-apt
packages+=,strongswan-charon,strongswan-swanctl,libcharon-extra-plugins
packages+=,libstrongswan-standard-plugins,libstrongswan-extra-plugins
# What libreswan needs. The package itself conflicts with strongSwan's, so its files are unpacked beside it.
packages+=,dns-root-data,bind9-host,iptables,libnss3-tools,libcap-ng0,libcurl3-nss,libevent-core-2.1-7
packages+=,libevent-pthreads-2.1-7,libldap-2.5-0,libldns3,libnspr4,libnss3,libpam0g,libunbound8
debootstrap --variant=minbase --include="$packages" bookworm "$root" >"$work/log" 2>&1 || { tail -n 20 "$work/log"; exit 1; }
chroot "$root" apt-get -q update >>"$work/log"
chroot "$root" sh -c 'cd /tmp && apt-get -q download libreswan' >>"$work/log" 2>&1
dpkg-deb --fsys-tarfile "$root"/tmp/libreswan_*.deb | tar -x --keep-directory-symlink -C "$root"
rm -rf "$root"/tmp/*.deb "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,locale,man}

cat >"$root/usr/local/sbin/lab-agent" <<'AGENT'
#!/bin/bash
# Runs the commands that come over the second serial port: as the guest's first process, after what systemd
# would do, or as a unit of systemd.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
if [ $$ -eq 1 ]; then
    mountpoint -q /proc || mount -t proc proc /proc
    mountpoint -q /sys || mount -t sysfs sysfs /sys
    mount -t tmpfs tmpfs /run
    mount -t tmpfs tmpfs /tmp
    ip link set lo up
fi
mkdir -p /run/lock /run/pluto
modprobe -a virtio_net xfrm_user esp4 esp6
exec <>/dev/ttyS1 >&0 2>/dev/ttyS0
stty -F /dev/ttyS1 raw -echo
echo ready
while read -r number command; do
    output=$(base64 -d <<<"$command" | bash 2>&1 | base64 -w0; exit "${PIPESTATUS[1]}")
    echo "$number $? $output"
done
AGENT
chmod 755 "$root/usr/local/sbin/lab-agent"
cat >"$root/etc/systemd/system/lab-agent.service" <<'UNIT'
[Unit]
Description=Commands of the laboratory
[Service]
ExecStart=/usr/local/sbin/lab-agent
[Install]
WantedBy=multi-user.target
UNIT
chroot "$root" systemctl --quiet enable lab-agent.service
chroot "$root" systemctl --quiet mask serial-getty@ttyS0.service serial-getty@ttyS1.service getty@tty1.service
chroot "$root" systemctl --quiet disable strongswan.service 2>/dev/null || true
# All of it is emulated: nothing begins by itself, and dpkg does not wait for the disk, which nobody keeps.
chroot "$root" systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer man-db.timer \
    e2scrub_all.timer e2scrub_reap.service fstrim.timer systemd-timesyncd.service
echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/unsafe-io"

rm -rf "$place"
mkdir -p "$place"
cp "$root"/boot/vmlinuz-* "$place/vmlinuz"
cp "$root"/boot/initrd.img-* "$place/initrd.img"
rm -rf "${root:?}"/boot/*
mke2fs -q -t ext4 -O ^has_journal -d "$root" "$work/root.ext4" 1800M
mv "$work/root.ext4" "$place/root.ext4"
touch "$stamp"
