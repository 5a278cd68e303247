#!/usr/bin/env bash
# First process of a host of the rig: builds what the host sees, then reaps orphans until it is killed.
# Usage (by lan.py, in new namespaces): host_init.sh NAME DISK_SIZE SHM_SIZE [PATH...]
# PATHs lie on other file systems than /, or in folders that every host has of its own; they are shown read-only.
set -euo pipefail
name=$1 disk=$2 shm=$3
shift 3

# The disk: all changes go to a file system in memory, over the machine's own, which stays as it is. It is mounted in
# this process's namespace alone, so it is gone with the host.
mount -t tmpfs -o "size=$disk,mode=755" rig-disk /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work rig-root /mnt/root
cd /mnt/root

mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs -o mode=755 dev dev
for node in null zero full random urandom tty; do
    : >"dev/$node"
    mount --bind "/dev/$node" "dev/$node"
done
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
mkdir dev/shm dev/pts
mount -t tmpfs -o "size=$shm,mode=1777" shm dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o mode=755 run run
mkdir -m 1777 /mnt/tmp
mount --bind /mnt/tmp tmp

hostname "$name"
echo "127.0.0.1 localhost" >etc/hosts
: >etc/resolv.conf
# Nothing personal of the machine shows: no keys, no tokens. Its folder may hold the Python that hosts run.
rm -rf root/.ssh root/.ray
chmod 755 root
grep -v '^ray:' /etc/passwd >etc/passwd
grep -v '^ray:' /etc/group >etc/group
grep -v '^ray:' /etc/shadow >etc/shadow
echo "ray:x:7777:7777::/home/ray:/bin/bash" >>etc/passwd
echo "ray:x:7777:" >>etc/group
echo "ray:*:19000::::::" >>etc/shadow
rm -rf home
mkdir -p home
install -d -m 700 -o 7777 -g 7777 home/ray
install -d -m 755 run/sshd

for path in "$@"; do
    mkdir -p ".$path"
    mount --rbind "$path" ".$path"
    mount -o remount,bind,ro ".$path"
done

mkdir .machine
pivot_root . .machine
cd /
umount -l .machine
rmdir .machine
trap 'exit 0' TERM
echo ready
exec >/dev/null 2>&1
while :; do
    sleep 3600 &
    wait "$!" || true
done
