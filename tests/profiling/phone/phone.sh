#!/bin/sh
# phone.sh ROOT SMALL COMMAND...: runs COMMAND where ROOT is ready for chroot as a phone whose processor is an Arm.
#
# In a namespace of its own, so nothing outside changes and no privilege is needed: this machine's programs are
# mounted into ROOT, Arm programs run under qemu by a private binfmt_misc (Linux 6.7 or later), and SMALL, if not 0,
# is the size in KB of the disk under /data/local/tmp.
root=$1 small=$2
shift 2
export root small
exec unshare --user --map-root-user --mount sh -ec '
    mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
    cat /usr/lib/binfmt.d/qemu-aarch64.conf > /proc/sys/fs/binfmt_misc/register
    for folder in bin lib lib64 usr proc dev; do
        [ -d "/$folder" ] || continue
        mkdir -p "$root/$folder"
        mount --rbind "/$folder" "$root/$folder"
    done
    mkdir -p "$root/data/local/tmp"
    [ "$small" = 0 ] || mount -t tmpfs -o "size=${small}k" none "$root/data/local/tmp"
    exec "$@"' sh "$@"
