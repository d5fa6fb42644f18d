import { spawnSync } from 'node:child_process'

/** Where a test that changes the network runs: namespaces of its own, so that the host's stay untouched. Call it before anything else, with the test's own file; it returns only inside. */
export function inside(file: string): void {
  if (process.env.SWITCHYARD_INSIDE === '1') return
  const program = ['sh', '-c', 'mount -t tmpfs tmpfs /run && mkdir -p /run/netns && mount -t sysfs sysfs /sys && ip link set lo up && exec "$@"', 'sh', process.execPath, ...process.execArgv, file]
  const { status, error } = spawnSync('unshare', ['--net', '--mount', '--uts', '--pid', '--fork', '--kill-child', '--mount-proc', '--', ...program], {
    stdio: 'inherit',
    env: { ...process.env, SWITCHYARD_INSIDE: '1' },
  })
  if (error !== undefined) throw error
  process.exit(status ?? 1)
}
