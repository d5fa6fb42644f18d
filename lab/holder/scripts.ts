/**
 * Shell that makes a private `/run` without losing sight of `$1`, the state folder, which may lie below it.
 * Whatever of the host answers there (systemd-resolved, nscd, D-Bus, the lock of iptables) is gone afterwards.
 */
const privateRun = `
exec 9<"$1"
mount -t tmpfs -o mode=755 tmpfs /run
case $1 in /run/*) mkdir -p "$1"; mount --no-canonicalize --rbind /proc/self/fd/9 "$1" ;; esac
exec 9<&-
mkdir -p /run/netns /run/lock
`

/**
 * The first process of the holder; `$1` is the state folder, the rest the supervisor's command line. It reaps what is orphaned,
 * and ends when the supervisor ends: then the kernel ends everything else in here.
 */
export const holderInit = `
set -e
mount -t sysfs sysfs /sys 2>/dev/null || true
${privateRun}
mount -t tmpfs -o mode=700 tmpfs "$1/inside"
shift
set +e
"$@" &
wait $!
exit $?
`

/** The first process of a node, in namespaces of its own; `$1` is the state folder, `$2` the node's name, `$3` the folder of its files. It says \`up\` and then only holds the namespaces. */
export const nodeInit = `
set -e
hostname "$2"
mount -t sysfs sysfs /sys 2>/dev/null || true
${privateRun}
for file in resolv.conf hosts hostname; do
  target=$(readlink -m /etc/$file)
  case $target in /run/*) mkdir -p "$(dirname "$target")"; : > "$target" ;; esac
  [ ! -e "$target" ] || mount --bind "$3/$file" "$target"
done
echo up
exec sleep infinity
`
