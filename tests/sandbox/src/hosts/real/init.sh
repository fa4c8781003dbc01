#!/bin/sh
# PID 1 of a sandbox host, from its first instruction in fresh namespaces until it becomes sshd.
#
# Says on stdout where it is: `pivoted PID` once /proc/PID/root is the host's own root (before
# that it is the machine's, and a device node made there would be made on the machine), then
# `sshd`, or `emergency` when a file system of /etc/fstab cannot be mounted.
#
# From the environment: LAB_NET (path of the lab's network namespace), BASE, DIR (this host's
# upper, work and root folders), HOST, ADDRESS, MASK, MAC, PORT (name of the cable's far end),
# CGROUPS (folders to join, may be empty), DISKS (device:minor:link ...).
set -eu
umask 022

# The mounted /proc is still the machine's, so this is our process id as the machine sees it.
read -r pid rest </proc/self/stat

# "0" is the writer itself; our own idea of our id is 1.
for group in $CGROUPS; do echo 0 >"$group/cgroup.procs"; done
echo "$HOST" >/proc/sys/kernel/hostname

ip -batch - <<END
link add eth0 address $MAC type veth peer name $PORT netns $LAB_NET
addr add $ADDRESS/$MASK dev eth0
link set lo up
link set eth0 up
END
nsenter --net="$LAB_NET" ip link set "$PORT" master br0 up

root=$DIR/root
{
    echo "overlay $root overlay lowerdir=$BASE,upperdir=$DIR/upper,workdir=$DIR/work"
    echo "proc $root/proc proc nosuid,nodev,noexec"
    echo "sysfs $root/sys sysfs ro,nosuid,nodev,noexec"
    echo "tmpfs $root/dev tmpfs mode=755,size=1m,nosuid,noexec"
    echo "devpts $root/dev/pts devpts X-mount.mkdir,newinstance,ptmxmode=666,mode=620,gid=5,nosuid,noexec"
    echo "tmpfs $root/dev/shm tmpfs X-mount.mkdir,mode=1777,nosuid,nodev"
    echo "tmpfs $root/run tmpfs mode=755,nosuid,nodev"
} >"$DIR/mounts"
mount --all --fstab "$DIR/mounts"

cd "$root"
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 666 dev/full c 1 7
mknod -m 666 dev/random c 1 8
mknod -m 666 dev/urandom c 1 9
mknod -m 666 dev/tty c 5 0
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
mkdir -p dev/disk/by-id run/sshd run/lock run/sysctl
for disk in $DISKS; do
    device=${disk%%:*} disk=${disk#*:}
    mknod -m 660 "dev/$device" b 7 "${disk%%:*}"
    ln -s "../../$device" "dev/disk/by-id/${disk#*:}"
done

# What in /proc belongs to the machine. Writable parts are bound over themselves first: the
# recursive bind of /proc/sys then takes them along, and only its top becomes read-only. Some
# sysctls Kubernetes installers insist on writing become private files of this host.
{
    echo "$root/proc/sys/net $root/proc/sys/net none bind"
    for key in kernel/panic kernel/panic_on_oops vm/overcommit_memory vm/panic_on_oom \
        vm/swappiness vm/max_map_count fs/inotify/max_user_instances \
        fs/inotify/max_user_watches fs/file-max; do
        [ -e "proc/sys/$key" ] || continue
        private=run/sysctl/${key##*/}
        # Not `read`: the kernel gives a sysctl in one piece or not at all.
        cat "proc/sys/$key" >"$private"
        echo "$root/$private $root/proc/sys/$key none bind"
    done
    # Each boot is another one, although the machine's stays the same.
    cat proc/sys/kernel/random/uuid >run/sysctl/boot_id
    echo "$root/run/sysctl/boot_id $root/proc/sys/kernel/random/boot_id none bind"
    echo "$root/proc/sys $root/proc/sys none rbind,ro"
    for machine in sysrq-trigger irq bus fs acpi scsi mtrr; do
        [ ! -e "proc/$machine" ] || echo "$root/proc/$machine $root/proc/$machine none bind,ro"
    done
    for secret in kcore kmsg; do
        [ ! -e "proc/$secret" ] || echo "$root/dev/null $root/proc/$secret none bind"
    done
} >"$DIR/masks"
mount --all --fstab "$DIR/masks"

pivot_root . mnt
cd /
umount -l /mnt
echo "pivoted $pid"

# A server whose fstab names a missing disk (without nofail) goes to emergency mode: it runs,
# but nobody can log in.
if ! mount --all; then
    echo emergency
    exec sleep infinity >/dev/null
fi

key=/etc/ssh/ssh_host_ed25519_key
[ -s $key ] || ssh-keygen -q -t ed25519 -N '' -C "root@$HOST" -f $key
echo sshd
# The clock, modules, ports, the kernel log and device nodes are the machine's.
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    setpriv --bounding-set=-sys_time,-sys_module,-sys_rawio,-syslog,-mknod,-wake_alarm,-block_suspend,-mac_admin,-mac_override,-bpf,-perfmon \
    /usr/sbin/sshd -D -e >&2
