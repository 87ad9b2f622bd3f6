#!/bin/sh
# What the tests, or with `demo` the demonstration, need from the system: installs it as root on Debian or Ubuntu,
# else says what is missing.
set -eu

missing=""
need() { # command, package
  command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need prometheus prometheus
need prometheus-alertmanager prometheus-alertmanager
if [ "${1:-}" != demo ]; then
  need promtool prometheus
  need amtool prometheus-alertmanager
  need prometheus-node-exporter prometheus-node-exporter
  need gcc gcc
  need systemd-analyze systemd
  command -v chromium-browser >/dev/null 2>&1 || need chromium chromium
  [ -e /usr/include/stdio.h ] || missing="$missing libc6-dev"
fi
[ -z "$missing" ] && exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "installing:$missing"
  apt-get update -qq
  # shellcheck disable=SC2086  # a list of packages
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
  echo "missing; install with: sudo apt-get install$missing" >&2
  exit 1
fi
