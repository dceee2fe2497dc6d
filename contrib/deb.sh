#!/usr/bin/env bash
# Builds the Debian packages in build/deb, one for each release that is named (all without a name), since the
# private environment holds what is compiled for that release's Python.
set -euo pipefail
cd "$(dirname "$0")/.."

declare -A pythons=([12]=3.11 [13]=3.13)
releases=("$@")
[ ${#releases[@]} -gt 0 ] || releases=(12 13)
bash contrib/tools.sh debhelper go-md2man fakeroot
python=$(bash contrib/python.sh)
version=$("$python" -c 'import vpnd; print(vpnd.__version__)')
architecture=$(dpkg --print-architecture)
# Commits order the packages between two releases, so that the later one is an upgrade.
commits=$(git rev-list --count HEAD 2>/dev/null || echo 0)
changed=$(git log -1 --format=%cd --date=rfc 2>/dev/null || date -R)
place=$PWD/build/deb

rm -rf "$place"
for release in "${releases[@]}"; do
    minor=${pythons[$release]:?there is no Debian $release here: 12 or 13}
    printf 'Debian %s, Python %s: ' "$release" "$minor"
    source=$place/$release/vpnd-$version
    mkdir -p "$source/debian/source"
    bash contrib/stage.sh "$source/debian/tree" "$minor"
    sed "s/@ARCH@/$architecture/; s/@PYTHON@/$minor/; s/@NEXT_PYTHON@/3.$((${minor#3.} + 1))/" \
        contrib/deb/control.in >"$source/debian/control"
    cp contrib/deb/{rules,postinst,prerm,postrm,copyright} "$source/debian/"
    cp contrib/deb/source-format "$source/debian/source/format"
    cat >"$source/debian/changelog" <<CHANGELOG
vpnd ($version+$commits~deb$release) stable; urgency=medium

  * See /usr/share/doc/vpnd/CHANGELOG.md.

 -- The vpnd maintainers <maintainers@vpnd.invalid>  $changed
CHANGELOG
    (cd "$source" && fakeroot debian/rules binary) >"$place/$release.log" 2>&1 ||
        { tail -n 20 "$place/$release.log"; exit 1; }
    mv "$place/$release"/*.deb "$place/"
    rm -rf "${place:?}/$release" "$place/$release.log"
    echo "build/deb/vpnd_$version+$commits~deb${release}_$architecture.deb"
done
