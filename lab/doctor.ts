import { spawnSync } from 'node:child_process'
import { accessSync, constants, readFileSync } from 'node:fs'
import { command } from '../lib/options.ts'
import { table } from './status.ts'
import { userNamespaceAdvice, withSystemPrograms } from './up.ts'

/** What a check found. `fail`: the lab cannot run; `lacks`: part of it cannot; each with the command that mends it where there is one. */
export interface Finding {
  readonly what: string
  readonly verdict: 'ok' | 'lacks' | 'fail'
  readonly found: string
  readonly mend?: string
}

/** The machine, as the checks see it. */
export interface Machine {
  readonly root: boolean
  /** A file's text, trimmed; undefined if it cannot be read. */
  read(file: string): string | undefined
  writable(file: string): boolean
  /** Runs a program; undefined when there is none of this name. */
  run(program: string, args: readonly string[]): { readonly status: number; readonly output: string } | undefined
}

/** Programs that the lab runs, and the Debian package each is in. Without the first ones nothing works. */
const programs: readonly (readonly [program: string, from: string, needed: boolean, what: string])[] = [
  ['unshare', 'util-linux', true, 'makes namespaces'],
  ['nsenter', 'util-linux', true, 'enters namespaces'],
  ['setpriv', 'util-linux', true, 'ties commands to who typed them'],
  ['ip', 'iproute2', true, 'makes links and routes'],
  ['iptables-restore', 'iptables', false, 'proxy mode iptables'],
  ['nft', 'nftables', false, 'shows what the mode nftables wrote'],
  ['ipset', 'ipset', false, 'large sets in mode iptables'],
  ['conntrack', 'conntrack', false, 'connections by Service'],
  ['tc', 'iproute2', false, 'lab break delay and loss'],
  ['tcpdump', 'tcpdump', false, 'lab capture'],
  ['curl', 'curl', false, 'the demo'],
  ['wrk', 'wrk', false, 'lab compare'],
  ['iperf3', 'iperf3', false, 'lab compare: throughput and UDP'],
  ['pasta', 'passt', false, 'a topology with uplink: pasta'],
  ['slirp4netns', 'slirp4netns', false, 'a topology with uplink: slirp4netns'],
]

/** Kernel features that are tried in namespaces of their own: a script that succeeds where it is there. */
const features: readonly (readonly [what: string, needed: boolean, script: string, lacking: string])[] = [
  ['links: veth', true, 'ip link add x0 type veth peer name x1', 'load the module veth'],
  ['links: bridge', true, 'ip link add x0 type bridge', 'load the module bridge'],
  ['iptables: NAT', false, 'iptables -t nat -A OUTPUT -d 10.96.0.1 -p tcp --dport 80 -j DNAT --to 127.0.0.1:80', 'mode iptables needs it: load iptable_nat or nft_compat'],
  ['nftables: NAT', false, 'nft add table ip t && nft add chain ip t c "{ type nat hook output priority -100; }"', 'mode nftables needs it: load nf_tables and nft_chain_nat'],
  ['ipset', false, 'ipset create s hash:ip,port', 'load the module ip_set'],
  ['IPVS', false, 'ls /proc/net/ip_vs', 'mode ipvs needs it: modprobe ip_vs; or "switchyard lab vm" brings a kernel that has it'],
  ['netem', false, 'ip link add x0 type veth peer name x1 && tc qdisc add dev x0 root netem delay 1ms', 'lab break delay and loss need it: modprobe sch_netem; or "switchyard lab vm"'],
  ['VXLAN', false, 'ip link add x0 type vxlan id 1 dstport 4789 dev lo', 'load the module vxlan'],
]

/** Looks at everything the lab stands on. */
export function examine(machine: Machine): readonly Finding[] {
  const findings: Finding[] = []
  const say = (what: string, verdict: Finding['verdict'], found: string, mend?: string): void => void findings.push({ what, verdict, found, ...(mend === undefined ? {} : { mend }) })

  const lacking = programs.filter(([program]) => machine.run('sh', ['-c', `command -v ${program}`])?.status !== 0)
  if (lacking.length === 0) say('programs', 'ok', programs.map(([p]) => p).join(', '))
  for (const [program, from, needed, what] of lacking) say(`program ${program}`, needed ? 'fail' : 'lacks', `not installed: ${what}`, `apt-get install ${from}`)

  const enter = [...(machine.root ? [] : ['--user', '--map-root-user']), '--net', '--mount', '--pid', '--fork', '--mount-proc']
  const made = machine.run('unshare', [...enter, 'true'])
  if (made?.status === 0) say('namespaces', 'ok', machine.root ? 'root makes them' : 'this user makes them, without sudo')
  else say('namespaces', 'fail', made?.output.trim() ?? 'there is no unshare', machine.root ? 'run the container with --privileged' : userNamespaceAdvice((file) => machine.read(`/proc/sys/${file}`)))

  if (made?.status === 0)
    for (const [what, needed, script, mend] of features) {
      const tried = machine.run('unshare', [...enter, 'sh', '-c', `mount -t tmpfs tmpfs /run; ${script}`])
      if (tried?.status === 0) say(`kernel: ${what}`, 'ok', 'works')
      else say(`kernel: ${what}`, needed ? 'fail' : 'lacks', tried?.output.trim().split('\n').at(-1) ?? 'cannot be tried', mend)
    }

  const limit = (name: string, least: number): void => {
    const value = Number(machine.read(`/proc/sys/fs/inotify/${name}`) ?? Number.NaN)
    if (value >= least) say(`fs.inotify.${name}`, 'ok', String(value))
    else if (!Number.isNaN(value)) say(`fs.inotify.${name}`, 'lacks', `${value}; many nodes need ${least}, or they fail with "too many open files"`, `sysctl -w fs.inotify.${name}=${least}`)
  }
  limit('max_user_instances', 512)
  limit('max_user_watches', 65_536)

  if (machine.read('/proc/cpuinfo')?.match(/\b(vmx|svm)\b/) !== null && machine.writable('/dev/kvm')) say('KVM', 'ok', '/dev/kvm is there: virtual machines are fast')
  else
    say(
      'KVM',
      'lacks',
      machine.writable('/dev/kvm') ? 'the processor shows no virtualisation' : '/dev/kvm cannot be opened: virtual machines are emulated, 15 to 30 times slower',
      machine.writable('/dev/kvm') ? undefined : 'usermod -aG kvm $USER, and log in again',
    )

  if (machine.writable('/dev/net/tun')) say('tun', 'ok', '/dev/net/tun is there: a lab may have a way out')
  else say('tun', 'lacks', '/dev/net/tun cannot be opened: a topology with an uplink needs it', machine.root ? 'modprobe tun' : 'sudo chmod 666 /dev/net/tun')

  if (machine.run('VBoxManage', ['--version'])?.status === 0) {
    const ranges = machine.read('/etc/vbox/networks.conf')
    if (ranges === undefined || /192\.168\.56\.0\/21|0\.0\.0\.0\/0/.test(ranges)) say('VirtualBox', 'ok', 'host-only networks may use 192.168.56.0/21')
    else say('VirtualBox', 'lacks', '/etc/vbox/networks.conf does not allow 192.168.56.0/21', "echo '* 192.168.56.0/21' >> /etc/vbox/networks.conf")
  }
  return findings
}

/** `switchyard lab doctor`. */
export const doctorCommand = command({
  name: 'doctor',
  summary: 'Says what this machine lacks for the lab, and how to mend it.',
  flags: { output: { type: 'string', short: 'o', help: 'table or json', oneOf: ['table', 'json'], default: 'table' } },
  run: async ({ values }, context) => {
    const findings = examine(thisMachine())
    if (values.output === 'json') context.out(`${JSON.stringify(findings, null, 2)}\n`)
    else
      context.out(
        table(
          ['', 'WHAT', 'FOUND', 'TO MEND IT'],
          findings.map((f) => [f.verdict, f.what, f.found, f.mend ?? '']),
        ),
      )
    return findings.some((f) => f.verdict === 'fail') ? 1 : 0
  },
})

function thisMachine(): Machine {
  const env = { ...process.env, PATH: withSystemPrograms(process.env.PATH) }
  return {
    root: process.getuid?.() === 0,
    read: (file) => {
      try {
        return readFileSync(file, 'utf8').trim()
      } catch {
        return undefined
      }
    },
    writable: (file) => {
      try {
        accessSync(file, constants.R_OK | constants.W_OK)
        return true
      } catch {
        return false
      }
    },
    run: (program, args) => {
      const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8', env, timeout: 10_000 })
      return error === undefined ? { status: status ?? 1, output: stdout + stderr } : undefined
    },
  }
}
