#!/usr/bin/env bash
# `make install`: this checkout on this system, without a package. DESTDIR puts it below another directory.
set -euo pipefail
cd "$(dirname "$0")/.."

destination=${DESTDIR:-}
minor=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')

bash contrib/tools.sh go-md2man
[ -z "$destination" ] || mkdir -p "$destination"
bash contrib/stage.sh build/install "$minor"
# Not cp: it refuses to copy a directory onto a link, which /lib is.
tar -C build/install -c . | tar -C "${destination:-/}" -x --keep-directory-symlink --no-same-owner --no-overwrite-dir
if [ -z "$destination" ]; then
    systemd-sysusers vpnd.conf
    install -d -m 0755 /etc/vpnd /etc/vpnd/tunnels.d
    install -d -m 0700 -o vpnd -g vpnd /etc/vpnd/psk
    [ ! -d /run/systemd/system ] || systemctl daemon-reload
fi
echo "vpnd is installed; /usr/share/doc/vpnd/README.md says what comes next."
