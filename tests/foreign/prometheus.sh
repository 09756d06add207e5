#!/bin/sh
# Debian's Prometheus and promtool, unpacked into this folder and not installed, so that no service of that name starts.
#
#     prometheus.sh FOLDER
set -eu
folder=$1
if test -x "$folder/usr/bin/prometheus"; then
    exit 0
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    echo "apt-get or dpkg-deb is missing: no test with Prometheus"
    exit 0
fi
mkdir -p "$folder"
cd "$folder"
fetch() {
    # promtool is a package of its own from Debian 13 on.
    for package in prometheus promtool; do
        apt-get download -q "$package" >/dev/null 2>&1 || test "$package" = promtool
    done
}
fetch || { (apt-get update -q || sudo -n apt-get update -q) >/dev/null 2>&1 && fetch; } || {
    echo "Debian's prometheus cannot be fetched: no test with it"
    exit 0
}
for file in *.deb; do
    dpkg-deb -x "$file" .
    rm "$file"
done
