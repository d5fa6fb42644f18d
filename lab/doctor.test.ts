import { test } from 'tap'
import { examine, type Machine } from './doctor.ts'

/** A machine that has everything but what is taken from it. */
function machine(lacks: {
  readonly programs?: readonly string[]
  readonly scripts?: RegExp
  readonly files?: Readonly<Record<string, string | undefined>>
  readonly user?: boolean
  readonly namespaces?: boolean
  readonly kvm?: boolean
  readonly vbox?: boolean
}): Machine {
  const files: Record<string, string | undefined> = {
    '/proc/sys/fs/inotify/max_user_instances': '1024',
    '/proc/sys/fs/inotify/max_user_watches': '99999',
    '/proc/cpuinfo': 'flags: vmx',
    ...lacks.files,
  }
  return {
    root: lacks.user !== true,
    read: (file) => files[file],
    writable: () => lacks.kvm !== false,
    run: (program, args) => {
      const words = args.join(' ')
      if (program === 'VBoxManage') return lacks.vbox === true ? { status: 0, output: '7' } : undefined
      if (program === 'sh') return { status: (lacks.programs ?? []).some((p) => words.endsWith(` ${p}`)) ? 1 : 0, output: '' }
      if (lacks.namespaces === false) return { status: 1, output: 'unshare: Operation not permitted' }
      return lacks.scripts?.test(words) === true ? { status: 1, output: 'not supported' } : { status: 0, output: '' }
    },
  }
}

test('the doctor names what is missing and what mends it', async (t) => {
  const rows: readonly [string, Parameters<typeof machine>[0], string, string, RegExp | undefined][] = [
    ['a program', { programs: ['conntrack'] }, 'program conntrack', 'lacks', /apt-get install conntrack/],
    ['a program without which nothing works', { programs: ['nsenter'] }, 'program nsenter', 'fail', /apt-get install util-linux/],
    ['a kernel feature', { scripts: /ip_vs/ }, 'kernel: IPVS', 'lacks', /modprobe ip_vs/],
    ['a kernel feature without which nothing works', { scripts: /type veth peer name x1$/ }, 'kernel: links: veth', 'fail', /veth/],
    [
      'user namespaces under AppArmor',
      { user: true, namespaces: false, files: { '/proc/sys/kernel/apparmor_restrict_unprivileged_userns': '1' } },
      'namespaces',
      'fail',
      /apparmor_restrict_unprivileged_userns=0/,
    ],
    ['inotify', { files: { '/proc/sys/fs/inotify/max_user_instances': '128' } }, 'fs.inotify.max_user_instances', 'lacks', /sysctl -w fs.inotify.max_user_instances=512/],
    ['KVM', { kvm: false }, 'KVM', 'lacks', /kvm/],
    ["VirtualBox's range", { vbox: true, files: { '/etc/vbox/networks.conf': '* 10.0.0.0/8' } }, 'VirtualBox', 'lacks', /192\.168\.56\.0\/21/],
  ]
  for (const [name, lacks, what, verdict, mend] of rows) {
    const finding = examine(machine(lacks)).find((f) => f.what === what)
    t.equal(finding?.verdict, verdict, name)
    if (mend !== undefined) t.match(finding?.mend, mend, `${name}: how to mend it`)
  }
  t.ok(
    examine(machine({})).every((f) => f.verdict === 'ok'),
    'and nothing where nothing is missing',
  )
})
