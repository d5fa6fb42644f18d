import { spawn, type StdioOptions } from 'node:child_process'
import { closeSync, fstatSync, mkdtempSync, openSync, readFileSync, readSync, rmdirSync, unlinkSync, writeFileSync, writeSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { cpio, program } from './cpio.ts'
import { cacheFolder, guestKernel, lacking, onPath, qemu, type GuestKernel } from './kernel.ts'

/** How a virtual machine is made. */
export interface VmOptions {
  /** Processors. Default 2; 1 with `instructions`. */
  readonly cores?: number
  /** Memory in MiB. Default 1024. */
  readonly memory?: number
  /** The machine's clock counts instructions, a nanosecond each: results repeat within 1 %, whatever else this machine does. One processor, and slower. */
  readonly instructions?: boolean
  /** Milliseconds until the machine is switched off and the call ends with `timedOut`. Default 600,000. */
  readonly timeout?: number
  /** Environment of the command, beside PATH, HOME and SWITCHYARD_VM=1. */
  readonly env?: Readonly<Record<string, string>>
  /** Folder it runs in. Default: this process's. */
  readonly cwd?: string
  /** `kvm`, `emulated`, or what works (default): KVM is used only after it was seen to boot this kernel. */
  readonly accelerator?: 'auto' | 'kvm' | 'emulated'
  /** Machines with the same word share a network segment, on `eth0`: the word picks a loopback multicast group. `address` is the last octet of their MAC. */
  readonly segment?: { readonly name: string; readonly machine: number }
  /** Takes what the command writes; what is left out is collected and returned. */
  readonly stdout?: (text: Buffer) => void
  readonly stderr?: (text: Buffer) => void
  /** Told what takes long: a download, a probe. */
  readonly said?: (what: string) => void
  readonly signal?: AbortSignal
}

/** What became of a command. */
export interface VmResult {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
  /** The kernel it ran in, `6.1.0-56-amd64`. */
  readonly kernel: string
  readonly accelerator: 'kvm' | 'emulated'
  /** Milliseconds from the call to its end. */
  readonly wall: number
  /** Guest nanoseconds the command took; with `instructions`, what it and its children executed, to a thousand. */
  readonly guest: number
}

/** Why no virtual machine can be started here, with what to install; undefined if one can. */
export { lacking as vmLacking } from './kernel.ts'

/**
 * Runs `command` as root under Debian's own kernel, over this machine's file system: reads come from here, writes go to memory and are gone afterwards. Needs no privilege.
 * Nothing stays behind, also after kill -9: the machine dies with this process, and its files have no names.
 */
export async function inVm(command: readonly string[], options: VmOptions = {}): Promise<VmResult> {
  const reason = await lacking()
  if (reason !== undefined) throw new Error(reason)
  const kernel = await guestKernel(options.said ?? (() => {}))
  const wanted = options.accelerator ?? 'auto'
  const accelerator = options.instructions === true || wanted === 'emulated' ? 'emulated' : wanted === 'kvm' ? 'kvm' : await acceleratorHere(kernel, options.said)
  return boot(kernel, accelerator, command, options)
}

/** For a test file that belongs into a machine with a kernel of its own: outside, boots one and runs the file again in it; its output and status become ours. True inside. */
export async function inside(file: string, options: VmOptions = {}): Promise<boolean> {
  if (process.env.SWITCHYARD_VM === '1') return true
  const reason = await lacking()
  if (reason !== undefined) {
    process.stdout.write(`TAP version 14\n1..0 # SKIP ${reason}\n`)
    return false
  }
  const root = new URL('../../', import.meta.url).pathname
  const put = (text: Buffer): void => void process.stdout.write(text)
  const result = await inVm(['sh', join(root, 'scripts/node'), file], { said: (what) => put(Buffer.from(`# ${what}\n`)), stdout: put, stderr: put, ...options })
  put(Buffer.from(`# ran in Linux ${result.kernel} (${result.accelerator === 'kvm' ? 'KVM' : 'software emulation'}), ${(result.wall / 1000).toFixed(1)} s\n`))
  process.exitCode = result.status
  return false
}

const quoted = (word: string): string => `'${word.replaceAll("'", `'\\''`)}'`

/** Of our own environment: where the caches are, and what a test is told. */
const handedOn = ['XDG_CACHE_HOME', 'TEST_SEED', 'TEST_LONG', 'TAP_TIMEOUT']

/** How the first program of every machine begins. */
export const prelude = [
  '#!/bin/sh',
  'b=/run/vm/busybox',
  '$b echo 1 > /proc/sys/kernel/printk',
  // The modules were indexed by busybox, whose index kmod's modprobe does not read; whatever asks for one asks busybox.
  '[ ! -x /sbin/modprobe ] || $b mount --bind $b "$($b readlink -f /sbin/modprobe)"',
].join('\n')

function start(command: readonly string[], options: VmOptions): string {
  const env = {
    PATH: `${process.env.PATH ?? '/usr/sbin:/usr/bin:/sbin:/bin'}:/usr/sbin:/sbin:/run/vm/bin`,
    HOME: process.env.HOME ?? '/root',
    TERM: 'dumb',
    SWITCHYARD_VM: '1',
    ...Object.fromEntries(handedOn.flatMap((name) => (process.env[name] === undefined ? [] : [[name, process.env[name]]]))),
    ...options.env,
  }
  return [
    prelude,
    '$b hostname vm; $b ip link set lo up',
    // HOME of another user (9p shows his files as they are) stays unwritable to no one: writes go to the layer of memory.
    `cd ${quoted(options.cwd ?? process.cwd())} 2>/dev/null || cd /`,
    ...Object.entries(env).map(([name, value]) => `export ${name}=${quoted(value)}`),
    'set -- /dev/vport*p1; port=${1%1}',
    // Where instructions are counted the clock jumps when the machine has nothing to do, as while a file is read: counted is what the command's processes ran.
    ...(options.instructions === true ? ['$b mkdir /sys/fs/cgroup/command; into="echo 0 > /sys/fs/cgroup/command/cgroup.procs"'] : ['into=:']),
    'began=$(date +%s%N)',
    `( eval "$into"; ${command.map(quoted).join(' ')} ) < /dev/null > "\${port}1" 2> "\${port}2"`,
    'status=$?',
    'ran=$(($(date +%s%N) - began))',
    ...(options.instructions === true ? ["ran=$($b sed -n 's/^usage_usec //p' /sys/fs/cgroup/command/cpu.stat)000"] : []),
    'echo "$status $ran" > "${port}3"',
    '$b echo o > /proc/sysrq-trigger',
    '$b sleep 60',
    '',
  ].join('\n')
}

/** What this machine emulates with: KVM only after it was seen to boot this kernel. */
export async function acceleratorHere(kernel: GuestKernel, said: VmOptions['said']): Promise<'kvm' | 'emulated'> {
  return (await kvmWorks(kernel, said)) ? 'kvm' : 'emulated'
}

/** A machine for QEMU, without its devices for words and networks. Descriptor 6 is the first file system, 7 takes the console. */
export function machineArgs(kernel: GuestKernel, accelerator: 'kvm' | 'emulated', how: { readonly cores: number; readonly memory: number; readonly counting?: boolean }): readonly string[] {
  const accel = accelerator === 'kvm' ? 'kvm' : `tcg,thread=${how.counting === true ? 'single' : 'multi'},tb-size=256`
  return [
    ['-machine', 'q35', '-accel', accel, '-cpu', accelerator === 'kvm' ? 'host' : 'max', '-smp', String(how.cores), '-m', String(how.memory)],
    ['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
    how.counting === true ? ['-icount', 'shift=0,sleep=off'] : [],
    ['-kernel', kernel.image, '-initrd', '/proc/self/fd/6'],
    ['-append', `console=ttyS0 quiet panic=-1 mitigations=off nokaslr no_timer_check tsc=reliable random.trust_cpu=on audit=0 apparmor=0 net.ifnames=0 sy.modules=${kernel.modules}`],
    ['-chardev', 'file,id=console,path=/proc/self/fd/7', '-serial', 'chardev:console'],
    ['-device', 'virtio-rng-pci'],
    ['-fsdev', 'local,id=root,path=/,security_model=none,readonly=on,multidevs=remap', '-device', 'virtio-9p-pci,fsdev=root,mount_tag=root'],
  ].flat()
}

/** A cable to a segment that machines share: a multicast group on loopback. */
export function segmentArgs(segment: { readonly name: string; readonly machine: number }): readonly string[] {
  return ['-netdev', `socket,id=lan,mcast=${group(segment.name)},localaddr=127.0.0.1`, '-device', `virtio-net-pci,netdev=lan,mac=52:54:00:53:59:${segment.machine.toString(16).padStart(2, '0')}`]
}

/** Files without names with what a machine starts from (`script` is its first program of ours), and for its console. */
export function machineFiles(kernel: GuestKernel, script: string): readonly [initrd: number, console_: number] {
  const [initrd, console_] = namelessFiles(['initrd', 'console'])
  writeSync(initrd!, Buffer.concat([readFileSync(kernel.initrd), cpio([program('start', Buffer.from(script))])]))
  return [initrd!, console_!]
}

async function boot(kernel: GuestKernel, accelerator: 'kvm' | 'emulated', command: readonly string[], options: VmOptions): Promise<VmResult> {
  const began = performance.now()
  const counting = options.instructions === true
  const cores = counting ? 1 : (options.cores ?? 2)
  const files = machineFiles(kernel, start(command, options))
  const args = [
    ...machineArgs(kernel, accelerator, { cores, memory: options.memory ?? 1024, counting }),
    // Ports instead of a terminal: octets arrive as they were written, and stdout, stderr and the status stay apart.
    '-device',
    'virtio-serial-pci',
    ...[3, 4, 5].flatMap((fd, i) => ['-chardev', `socket,id=port${i},fd=${fd}`, '-device', `virtserialport,chardev=port${i},nr=${i + 1}`]),
    ...(options.segment === undefined ? [] : segmentArgs(options.segment)),
  ]
  const stdio: StdioOptions = ['ignore', 'ignore', 'pipe', 'pipe', 'pipe', 'pipe', ...files]
  // The machine dies with us, however we die.
  const dies = (await onPath('setpriv')) ? ['setpriv', '--pdeathsig', 'KILL'] : []
  const [program_, ...rest] = [...dies, qemu, ...args]
  const child = spawn(program_!, rest, { stdio })
  const taken = [collector(options.stdout), collector(options.stderr), collector(undefined), collector(undefined)]
  for (const [i, fd] of [3, 4, 5, 2].entries()) child.stdio[fd]!.on('data', (bytes: Buffer) => taken[i]!.take(bytes)).on('error', () => {})
  let timedOut = false
  const timer = setTimeout(() => {
    timedOut = true
    child.kill('SIGKILL')
  }, options.timeout ?? 600_000)
  const stop = (): void => void child.kill('SIGKILL')
  options.signal?.addEventListener('abort', stop, { once: true })
  try {
    if (options.signal?.aborted === true) stop()
    const code = await new Promise<number | null>((resolve, reject) => child.on('error', reject).on('close', resolve))
    const [stdout, stderr, control, complaints] = taken.map((t) => t.text())
    const [status, guest] = (control ?? '').trim().split(' ').map(Number)
    const done = { stdout: stdout!, stderr: stderr!, kernel: kernel.release, accelerator, wall: performance.now() - began, guest: guest ?? 0 }
    if (status !== undefined && (control ?? '') !== '') return { status, ...done }
    options.signal?.throwIfAborted()
    if (timedOut) throw new Error(`the virtual machine was switched off after ${(options.timeout ?? 600_000) / 1000} s${tail(files[1])}`)
    throw new Error(`the virtual machine ended without a result (QEMU's status ${code})${complaints === '' ? '' : `\n${complaints}`}${tail(files[1])}`)
  } finally {
    clearTimeout(timer)
    options.signal?.removeEventListener('abort', stop)
    for (const fd of files) closeSync(fd)
  }
}

function collector(give: ((text: Buffer) => void) | undefined) {
  const parts: Buffer[] = []
  return { take: give ?? ((bytes: Buffer) => void parts.push(bytes)), text: () => Buffer.concat(parts).toString() }
}

function namelessFiles(names: readonly string[]): number[] {
  const dir = mkdtempSync(join(tmpdir(), 'switchyard-vm-'))
  try {
    return names.map((name) => {
      const fd = openSync(join(dir, name), 'wx+', 0o600)
      unlinkSync(join(dir, name))
      return fd
    })
  } finally {
    rmdirSync(dir)
  }
}

/** The last lines of a machine's console. */
export function tail(fd: number): string {
  const size = fstatSync(fd).size
  const b = Buffer.alloc(Math.min(size, 2000))
  readSync(fd, b, 0, b.length, size - b.length)
  const text = b.toString('latin1').replaceAll('\r', '').trim()
  return text === '' ? '' : `\nits console: ${text.split('\n').slice(-15).join('\n  ')}`
}

/** A multicast group on loopback for a segment's name. */
function group(name: string): string {
  let hash = 0x811c9dc5
  for (const c of name) hash = Math.imul(hash ^ c.codePointAt(0)!, 0x0100_0193) >>> 0
  return `239.255.${hash & 255}.${(hash >>> 8) & 255}:${16_384 + ((hash >>> 16) % 16_384)}`
}

/** Whether KVM boots this kernel, by booting it; remembered until this machine starts again. A device that is there and does nothing is found out, and so is one that never comes back. */
async function kvmWorks(kernel: GuestKernel, said: VmOptions['said']): Promise<boolean> {
  try {
    closeSync(openSync('/dev/kvm', 'r+'))
  } catch {
    return false
  }
  const bootId = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8').catch(() => '')).trim()
  const kept = join(cacheFolder(), 'kvm.json')
  try {
    const known = JSON.parse(await readFile(kept, 'utf8')) as { bootId: string; release: string; works: boolean }
    if (known.bootId === bootId && known.release === kernel.release) return known.works
  } catch {
    // Not tried yet.
  }
  let works = false
  let why = ''
  try {
    works = (await boot(kernel, 'kvm', ['true'], { timeout: 8000, memory: 256, cores: 1 })).status === 0
  } catch (error) {
    why = error instanceof Error ? error.message.split('\n').slice(0, 2).join(' ') : String(error)
  }
  said?.(works ? 'KVM works here' : `KVM is present and does not work, software emulation is used (${why})`)
  writeFileSync(kept, JSON.stringify({ bootId, release: kernel.release, works, why }))
  return works
}
