#!/bin/sh
# phone.sh ROOT SMALL ARM64 COMMAND...: runs COMMAND where ROOT is ready for chroot as a phone whose processor is an Arm.
#
# In a namespace of its own, so nothing outside changes and no privilege is needed: this machine's programs are
# mounted into ROOT, Arm programs run under qemu by a private binfmt_misc (Linux 6.7 or later), and SMALL, if not 0,
# is the size in KB of the disk under /data/local/tmp. ARM64, if not empty, is a folder with Debian for Arm, which
# becomes /arm64; the processor is then what its cpus/cortex-a76 says.
root=$1 small=$2 arm64=$3
shift 3
export root small arm64
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
    [ -z "$arm64" ] || {
        mkdir -p "$root/arm64"
        mount --rbind "$arm64" "$root/arm64"
        mount --bind "$arm64/cpus/cortex-a76/cpuinfo" "$root/proc/cpuinfo"
    }
    exec "$@"' sh "$@"
