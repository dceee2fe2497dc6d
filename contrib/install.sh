#!/usr/bin/env bash
# `make install`: this checkout on this system, without a package. DESTDIR puts it below another directory.
set -euo pipefail
cd "$(dirname "$0")/.."

destination=${DESTDIR:-}
minor=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')

bash contrib/tools.sh go-md2man
[ -z "$destination" ] || mkdir -p "$destination"
rm -rf build/install
bash contrib/stage.sh build/install "$minor"
# Not cp: it refuses to copy a directory onto a link, which /lib is.
tar -C build/install -c . | tar -C "${destination:-/}" -x --keep-directory-symlink --no-same-owner --no-overwrite-dir
if [ -z "$destination" ]; then
    /usr/bin/python3 -m compileall -q /usr/lib/vpnd
    systemd-sysusers vpnd.conf
    install -d -m 0755 /etc/vpnd /etc/vpnd/tunnels.d
    install -d -m 0700 -o vpnd -g vpnd /etc/vpnd/psk
    ! aa-enabled --quiet 2>/dev/null || apparmor_parser -r -T -W /etc/apparmor.d/vpnd
    if [ -d /run/systemd/system ]; then
        systemctl daemon-reload
        modprobe tun 2>/dev/null || true
        /lib/systemd/systemd-sysctl 60-vpnd.conf
    fi
fi
echo "vpnd is installed; /usr/share/doc/vpnd/README.md says what comes next."
