#!/bin/bash
# Usage: build.sh DIR. Makes DIR/etcd and DIR/kube-apiserver from Debian's packages: etcd as it is,
# the API server from the source of the package `kubernetes`. Nothing is installed, no root is
# needed: packages are fetched, checked by apt, and unpacked beneath DIR. Takes about five minutes.
# Exit code 3: this machine has no apt or no such packages.
set -euo pipefail

out=$(realpath -m "$1")
[ -x "$out/kube-apiserver" ] && [ -x "$out/etcd" ] && exit 0

for tool in apt-get dpkg-deb git tar; do
  command -v $tool > /dev/null || { echo "an API server is built from Debian's packages; here is no $tool"; exit 3; }
done

work=$out/build
rm -rf "$work"
mkdir -p "$work"/{sources,lists/partial,cache/archives/partial,debs,tree}
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT

# The machine's own sources of this Debian release, with its source packages.
release=$(. /etc/os-release && echo "${VERSION_CODENAME:-none}")
for file in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
  [ -f "$file" ] || continue
  case $file in
    *.sources) ! grep -qE "^Suites:(.* )?$release( |$)" "$file" ||
      sed 's/^Types:.*/Types: deb deb-src/' "$file" > "$work/sources/$(basename "$file")" ;;
    *.list) ! grep -qE "^deb .* $release " "$file" ||
      sed -nE "s/^deb( .* $release .*)/deb\1\ndeb-src\1/p" "$file" > "$work/sources/$(basename "$file")" ;;
  esac
done
apt=(-qq -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$work/sources"
  -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User="$(id -un)")

cd "$work/debs"
apt-get "${apt[@]}" update || { echo "apt cannot fetch its lists of packages"; exit 3; }
mapfile -t go < <(apt-cache "${apt[@]}" depends --recurse --important golang-go | grep -E '^golang-')
apt-get "${apt[@]}" download etcd-server golang-github-modern-go-reflect2-dev "${go[@]}" &&
  apt-get "${apt[@]}" source --download-only kubernetes ||
  { echo "this Debian has no etcd-server, golang-go or source package kubernetes"; exit 3; }
for deb in *.deb; do dpkg-deb -x "$deb" "$work/tree"; done

# Kubernetes 1.20 was built in a GOPATH.
source=$work/go/src/k8s.io/kubernetes
mkdir -p "$source" && cd "$source"
tar xzf "$work"/debs/kubernetes_*.orig.tar.gz --strip-components=1
tar xJf "$work"/debs/kubernetes_*.debian.tar.xz
for patch in $(grep -v '^#' debian/patches/series); do
  GIT_CEILING_DIRECTORIES=$work git apply "debian/patches/$patch"
done
# Go 1.18 and later crash with the one that Kubernetes carries.
reflect2=github.com/modern-go/reflect2
rm -rf vendor/$reflect2
cp -r "$work/tree/usr/share/gocode/src/$reflect2" vendor/$reflect2

GOROOT=$(echo "$work"/tree/usr/lib/go-*) && export GOROOT PATH=$GOROOT/bin:$PATH
export GOPATH=$work/go GOCACHE=$work/cache/go GO111MODULE=off CGO_ENABLED=0

# What the API server says of its types is not part of the sources.
types=$(grep -Rl --include=*.go '^// +k8s:openapi-gen=' vendor/k8s.io |
  grep -vE '/(code-generator|sample-apiserver|kube-openapi)/' | xargs -n1 dirname | sort -u)
go build -o "$work/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
"$work/openapi-gen" -O zz_generated.openapi -p k8s.io/kubernetes/pkg/generated/openapi \
  -h hack/boilerplate/boilerplate.generatego.txt -r "$work/violations" \
  -i "$(sed 's|^|k8s.io/kubernetes/|' <<< "$types" | paste -sd,)"

version=$(basename "$work"/debs/kubernetes_*.orig.tar.gz | sed -nE 's/.*really([0-9.]+)\.orig.*/\1/p')
go build -trimpath -o "$work/kube-apiserver" \
  -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=v$version" ./cmd/kube-apiserver
mv "$work/kube-apiserver" "$work/tree/usr/bin/etcd" "$out"
