#!/usr/bin/env bash
# Lays out everything that a system with vpnd has below a directory:
#
#   contrib/stage.sh DIRECTORY PYTHON     such as  contrib/stage.sh build/tree 3.11
#
# The Python packages come as wheels for that Python into one private environment, /usr/lib/vpnd/site-packages,
# which the two programs see and nothing else. What is generated (man pages, completion) is generated once.
set -euo pipefail
cd "$(dirname "$0")/.."

tree=$1
minor=$2
python=$(bash contrib/python.sh)
common=$PWD/build/common

if [ ! -e "$common/ready" ] || [ -n "$(find vpnd contrib pyproject.toml -newer "$common/ready" -print -quit)" ]; then
    rm -rf "$common"
    mkdir -p "$common"
    "$python" -m pip wheel -q --no-deps -w "$common" .
    "$python" contrib/reference.py "$common/reference"
    for page in vpnd.8 vpnctl.8 vpnd.toml.5; do
        go-md2man -in "$common/reference/man/$page.md" -out "$common/reference/man/$page"
        gzip -9n "$common/reference/man/$page"
    done
    touch "$common/ready"
fi

program() {  # program MODULE: a start that sees the private environment and nothing else
    cat <<PROGRAM
#!/usr/bin/python3 -IS
import sys

sys.path.insert(0, "/usr/lib/vpnd/site-packages")

from $1 import main  # noqa: E402

main()
PROGRAM
}

install -d "$tree"/usr/{bin,lib/vpnd,share/man/man5,share/man/man8,share/doc/vpnd/examples} \
    "$tree"/usr/lib/{sysusers.d,modules-load.d,sysctl.d} "$tree"/lib/systemd/system
rm -rf "$tree/usr/lib/vpnd/site-packages"
"$python" -m pip install -q --target "$tree/usr/lib/vpnd/site-packages" --no-compile \
    --python-version "$minor" --implementation cp --only-binary :all: \
    --platform "manylinux_2_34_$(uname -m)" --platform "manylinux_2_28_$(uname -m)" \
    --platform "manylinux2014_$(uname -m)" \
    "$(echo "$common"/vpnd-*.whl)[console]"
rm -rf "$tree/usr/lib/vpnd/site-packages/bin"
program vpnd.daemon.main >"$tree/usr/bin/vpnd"
program vpnd.control.cli >"$tree/usr/bin/vpnctl"
chmod 755 "$tree"/usr/bin/{vpnd,vpnctl}
cp "$common"/reference/man/*.8.gz "$tree/usr/share/man/man8/"
cp "$common"/reference/man/*.5.gz "$tree/usr/share/man/man5/"
cp -r "$common"/reference/share/. "$tree/usr/share/"
cp README.md CHANGELOG.md "$tree/usr/share/doc/vpnd/"
cp -r conf/*.toml conf/prometheus "$tree/usr/share/doc/vpnd/examples/"
cp systemd/*.service "$tree/lib/systemd/system/"
cp systemd/sysusers.d/vpnd.conf "$tree/usr/lib/sysusers.d/"
cp systemd/modules-load.d/vpnd.conf "$tree/usr/lib/modules-load.d/"
cp systemd/sysctl.d/60-vpnd.conf "$tree/usr/lib/sysctl.d/"
install -D -m 644 systemd/networkd.conf.d/60-vpnd.conf "$tree/usr/lib/systemd/networkd.conf.d/60-vpnd.conf"
install -D -m 644 contrib/apparmor/vpnd "$tree/etc/apparmor.d/vpnd"
