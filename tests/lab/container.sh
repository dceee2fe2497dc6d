#!/usr/bin/env bash
# Builds the root of a small Debian 12 with systemd for systemd-nspawn in build/container. Run again, it does nothing
# unless this file has changed.
set -euo pipefail
cd "$(dirname "$0")/../.."

place=build/container
stamp=$place/$(sha256sum tests/lab/container.sh | cut -c1-16)
[ ! -e "$stamp" ] || exit 0

bash contrib/tools.sh systemd-container debootstrap
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
echo "Building the container's Debian in $place, about two minutes"
packages=systemd-sysv,dbus,iproute2,iputils-ping,kmod,procps,python3,nftables,man-db
# What a server has, and what Ansible asks of it.
packages+=,apparmor,bash-completion,sudo,openssh-server,python3-apt
debootstrap --variant=minbase --include="$packages" bookworm "$root" >"$work/log" 2>&1 || { tail -n 20 "$work/log"; exit 1; }
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,locale,man}
# Nothing begins by itself, and there is no network to ask.
chroot "$root" systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer man-db.timer \
    e2scrub_all.timer e2scrub_reap.service fstrim.timer console-getty.service
echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/unsafe-io"
echo container >"$root/etc/hostname"

rm -rf "$place"
mkdir -p "$place"
mv "$root" "$place/root"
touch "$stamp"
