#!/bin/sh
# Builds the interop client of grpc-go, which the gRPC project publishes, into a folder:
#
#     tests/foreign/grpc-go.sh target/foreign
#     tests/foreign/grpc-go.sh --packages     says which of Debian's packages it needs
#
# Its source is that of Debian's package golang-google-grpc (the -dev package leaves the client out), taken from
# the mirror that apt uses, and checked by apt. Where it cannot be built, this says so, and is content.
set -eu

packages="golang-go dpkg-dev golang-google-genproto-dev golang-github-golang-protobuf-1-5-dev
golang-golang-x-net-dev golang-golang-x-oauth2-google-dev golang-golang-x-sys-dev"
if [ "${1:?usage: $0 FOLDER}" = --packages ]; then
    echo "$packages"
    exit
fi

mkdir -p "$1"
folder=$(cd "$1" && pwd)/grpc-go
client=$folder/interop_client
[ ! -x "$client" ] || exit 0

left_out() {
    echo "grpc-go's interop client is left out: $*"
    exit 0
}
missing=
for package in $packages; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || status=
    [ "$status" = installed ] || missing="$missing $package"
done
[ -z "$missing" ] || left_out "it needs Debian's packages$missing"

libraries=/usr/share/gocode
rm -rf "$folder"
mkdir -p "$folder/apt/lists/partial" "$folder/apt/archives/partial" "$folder/path/src/google.golang.org"
cd "$folder/apt"

# The machine's own sources need not name source packages; these do, and only for this.
apt-get indextargets --format '$(ORIGIN) deb-src $(REPO_URI) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' |
    sed -nE 's/^(Debian|Ubuntu) (deb-src .* [a-z]+ (main|universe))$/\2/p' | sort -u >sources.list
apt="-o Dir::Etc::sourcelist=$folder/apt/sources.list -o Dir::Etc::sourceparts=/nonexistent
    -o Dir::State::lists=$folder/apt/lists -o Dir::Cache=$folder/apt -o APT::Sandbox::User=root"
# shellcheck disable=SC2086
apt-get $apt -qq update && apt-get $apt -qq source --download-only golang-google-grpc ||
    left_out "its source cannot be had"
# apt has checked it; dpkg-source would ask for the key of the person who uploaded it.
dpkg-source --no-check --extract golang-google-grpc_*.dsc "$folder/path/src/google.golang.org/grpc"

cd "$folder"
GO111MODULE=off GOFLAGS= GOPATH="$folder/path:$libraries" go build -o "$client" google.golang.org/grpc/interop/client ||
    left_out "it does not compile with the packages of this system"
rm -rf "$folder/apt"
