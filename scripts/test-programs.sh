#!/bin/sh
# Installs the programs that tests start and Debian has, where it may: as root, or by a sudo that asks for no password.
# It never fails: what is missing all the same, the last line of the tests names.
set -u
PATH=$PATH:/usr/sbin:/sbin
missing=
for pair in chromium:chromium rsync:rsync sshd:openssh-server ssh:openssh-client openssl:openssl; do
    command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair#*:}"
done
[ -n "$missing" ] && command -v apt-get >/dev/null || exit 0
if [ "$(id -u)" = 0 ]; then
    root=env
elif sudo -n true 2>/dev/null; then
    root="sudo -n env"
else
    exit 0
fi

apt() {
    $root DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 "$@" </dev/null >"$log" 2>&1
}
log=$(mktemp)
echo "Installing$missing with apt-get: tests start them."
case $missing in *openssh-server*)
    # The tests start an sshd of their own on loopback; this machine's must not begin to listen for their sake.
    if [ -d /run/systemd/system ]; then
        $root systemctl --quiet mask ssh.service ssh.socket 2>/dev/null
        trap '$root systemctl --quiet unmask ssh.service ssh.socket 2>/dev/null
              $root systemctl --quiet disable ssh.service ssh.socket 2>/dev/null' EXIT
    fi
esac
ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1 || apt update
# shellcheck disable=SC2086
apt install --yes --no-install-recommends $missing || { apt update && apt install --yes --no-install-recommends $missing; } || {
    echo "apt-get could not install$missing:" >&2
    tail -n 3 "$log" >&2
}
rm -f "$log"
exit 0
