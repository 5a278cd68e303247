#!/usr/bin/env bash
# Install what the rig and its tests need (Debian, Ubuntu; as root). Never fails: what is missing, the tests name.
set -uo pipefail
commands=(ip rsync ssh /usr/sbin/sshd shellcheck)
packages=(iproute2 rsync openssh-client openssh-server shellcheck)

wanted=()
for i in "${!commands[@]}"; do
    command -v "${commands[$i]}" >/dev/null || wanted+=("${packages[$i]}")
done
[ "${#wanted[@]}" -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "note: not installed, so some cluster tests will skip: ${wanted[*]}" >&2
    exit 0
fi

# The hosts of the rig run SSH servers; this machine itself shall not begin to.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
install() {
    timeout 300 apt-get install -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 -o Acquire::Retries=1 "${wanted[@]}"
}
log=$(mktemp)
# Lists of packages may be old or absent: fetch them when the first try fails.
if ! install >"$log" 2>&1 && ! { timeout 120 apt-get update -qq && install; } >"$log" 2>&1; then
    echo "note: could not install ${wanted[*]}, so some cluster tests will skip: $(tail -n 1 "$log")" >&2
fi
rm -f "$log"
exit 0
