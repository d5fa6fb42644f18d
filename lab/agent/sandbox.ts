import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { accessSync, closeSync, constants, mkdirSync, openSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beginning, childrenOf } from '../state.ts'

/** A process that is known again after a restart of the agent: a pid alone may belong to somebody else by then. */
export interface Process {
  readonly pid: number
  readonly began: string
}

/** The namespaces of one Pod. */
export interface SandboxSpec {
  /** Holds `etc/`, whose files cover those of the same name in /etc, and `volumes/`. */
  readonly folder: string
  /** Undefined: the Pod lives in the node's own network. */
  readonly hostname: string | undefined
  /** Which volume appears where in the Pod. */
  readonly mounts: readonly { readonly volume: string; readonly path: string; readonly readOnly: boolean }[]
}

export interface RunSpec {
  /** `exit` is written here when the process ends. */
  readonly folder: string
  readonly argv: readonly string[]
  readonly env: Readonly<Record<string, string>>
  readonly workingDir: string
  readonly log: string
}

/** How a program run inside a Pod ended. */
export interface ExecResult {
  readonly code: number
  readonly output: string
}

/** What runs Pods. The real one uses namespaces; tests of the agent put a fake in its place. */
export interface Runtime {
  /** Makes the Pod's namespaces; `network` is called with its first process before anything runs in it. */
  create(spec: SandboxSpec, network: (pid: number) => Promise<void>): Promise<Process>
  alive(process: Process): boolean
  /** Starts a process in the Pod that outlives the agent; `ended` is told of its end if the agent still runs then. */
  start(sandbox: Process, run: RunSpec, ended: () => void): Promise<Process>
  /** How the run in `folder` ended; undefined while it has not. */
  exited(run: Process, folder: string): { readonly code: number; readonly ended: number } | undefined
  /** Sends a signal to the container's first process, or, with SIGKILL, to all of it. */
  signal(run: Process, signal: NodeJS.Signals): void
  exec(sandbox: Process, argv: readonly string[], env: Readonly<Record<string, string>>, signal: AbortSignal): Promise<ExecResult>
  /** Starts a program in the Pod with its input and output here, on a terminal of its own if `tty`; it leads its process group. */
  attach(sandbox: Process, run: { readonly argv: readonly string[]; readonly env: Readonly<Record<string, string>>; readonly workingDir: string; readonly tty: boolean }): ChildProcess
  /** Ends every process of the Pod. Its network interfaces go with it. */
  destroy(sandbox: Process): Promise<void>
}

/**
 * The first process of a Pod; `$1` is its folder, `$2` its host name, the rest triples of volume, mount path and `ro` or `rw`. It says `up`,
 * then reaps what is orphaned. Nothing of the host that answers for names (systemd-resolved, nscd, D-Bus) is left in its /run.
 */
const podInit = `
set -e
[ -z "$2" ] || hostname "$2"
mount -t sysfs sysfs /sys 2>/dev/null || true
exec 9<"$1"
shift 2
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
for file in resolv.conf hosts hostname nsswitch.conf; do
  target=$(readlink -m /etc/$file)
  case $target in /run/*) mkdir -p "\${target%/*}"; : > "$target" ;; esac
  [ ! -e "$target" ] || mount --no-canonicalize --bind /proc/self/fd/9/etc/$file "$target"
done
while [ $# -gt 0 ]; do
  case $2 in /run/* | /var/run/*) mkdir -p "$2" ;; esac
  [ -d "$2" ] || { echo "the mount path $2 does not exist on this machine, and the agent does not write to it; use one below /run" >&2; exit 1; }
  mount --no-canonicalize --bind "/proc/self/fd/9/volumes/$1" "$2"
  [ "$3" = rw ] || mount -o remount,bind,ro "$2"
  shift 3
done
exec 9<&-
echo up
exec > /dev/null 2>&1
while :; do sleep 2147483 & wait; done
`

/** Waits for the run outside the Pod's process namespace and leaves its exit status in a file, so that nobody has to be its parent. Its own words (`Killed`) go nowhere. */
const shim = `
exit=$1 pid=$2 dir=$3
shift 3
( exec "$NSENTER" -t "$pid" -n -m -u -i -p -- /bin/sh -c 'unset NSENTER; cd "$0" || exit 126; exec "$@"' "$dir" "$@" >&3 2>&3 3>&- )
echo $? > "$exit"
`

/** A Pod whose first process does not say it is up within this time (ms) never will. */
const patience = 20_000

/** Pods as processes in namespaces. */
export function namespaces(tools: { readonly nsenter: string; readonly unshare: string } = { nsenter: which('nsenter'), unshare: which('unshare') }): Runtime {
  return {
    create: async (spec, network) => {
      const own = spec.hostname === undefined ? ['--mount', '--ipc', '--pid'] : ['--net', '--mount', '--uts', '--ipc', '--pid']
      const mounts = spec.mounts.flatMap((m) => [m.volume, m.path, m.readOnly ? 'ro' : 'rw'])
      const child = spawn(tools.unshare, [...own, '--fork', '--mount-proc', '--', '/bin/sh', '-c', podInit, 'pod', spec.folder, spec.hostname ?? '', ...mounts], {
        detached: true,
        cwd: '/',
        stdio: ['ignore', 'pipe', 'pipe'],
      })
      await saysUp(child)
      child.unref()
      const [pid] = childrenOf(child.pid!)
      const began = pid === undefined ? undefined : beginning(pid)
      if (pid === undefined || began === undefined) throw new Error('the first process of the Pod ended at once')
      await network(pid)
      return { pid, began }
    },
    alive: (p) => beginning(p.pid) === p.began,
    start: (sandbox, run, ended) =>
      new Promise((resolve, reject) => {
        mkdirSync(run.folder, { recursive: true })
        rmSync(join(run.folder, 'exit'), { force: true })
        const log = openSync(run.log, 'a')
        const child = spawn('/bin/sh', ['-c', shim, 'shim', join(run.folder, 'exit'), String(sandbox.pid), run.workingDir, ...run.argv], {
          detached: true,
          cwd: '/',
          stdio: ['ignore', 'ignore', 'ignore', log],
          env: { ...run.env, NSENTER: tools.nsenter },
        })
        closeSync(log)
        child.once('error', reject)
        child.once('exit', ended)
        child.once('spawn', () => {
          child.unref()
          resolve({ pid: child.pid!, began: beginning(child.pid!) ?? '' })
        })
      }),
    exited: (run, folder) => {
      const file = join(folder, 'exit')
      try {
        const text = readFileSync(file, 'utf8')
        if (text.endsWith('\n')) return { code: Number(text), ended: statSync(file).mtimeMs }
      } catch {
        // Not written: it runs, or somebody killed the one who waits for it.
      }
      if (beginning(run.pid) === run.began) return undefined
      writeFileSync(file, '137\n')
      return { code: 137, ended: Date.now() }
    },
    signal: (run, signal) => {
      if (beginning(run.pid) !== run.began) return
      // Shim, then nsenter, then the container's own first process.
      for (const entering of childrenOf(run.pid)) for (const first of childrenOf(entering)) send(first, signal)
    },
    exec: (sandbox, argv, env, signal) =>
      new Promise((resolve, reject) => {
        const words = ['-t', String(sandbox.pid), '-n', '-m', '-u', '-i', '-p', '--', ...argv]
        const child = execFile(tools.nsenter, words, { signal, killSignal: 'SIGKILL', env: { ...env }, cwd: '/', maxBuffer: 1 << 20 }, (error, stdout, stderr) => {
          if (signal.aborted) reject(new Error('timed out'))
          else if (error !== null && typeof error.code !== 'number' && child.exitCode === null) reject(error)
          else resolve({ code: child.exitCode ?? 0, output: stdout + stderr })
        })
      }),
    attach: (sandbox, run) => {
      const enter = [tools.nsenter, '-t', String(sandbox.pid), '-n', '-m', '-u', '-i', '-p', '--', '/bin/sh', '-c', 'cd "$0" || exit 126; exec "$@"', run.workingDir, ...run.argv]
      // `script` makes the terminal, as everything else here is made: by a program that every Debian has.
      const quoted = enter.map((w) => `'${w.replaceAll("'", "'\\''")}'`).join(' ')
      const [program, ...words] = run.tty ? [which('script'), '-qefc', quoted, '/dev/null'] : enter
      return spawn(program!, words, { detached: true, cwd: '/', env: { ...(run.tty ? { TERM: 'xterm' } : {}), ...run.env, SHELL: '/bin/sh' }, stdio: ['pipe', 'pipe', 'pipe'] })
    },
    destroy: async (sandbox) => {
      for (let i = 0; beginning(sandbox.pid) === sandbox.began && i < 500; i++) {
        send(sandbox.pid, 'SIGKILL')
        await new Promise((resolve) => setTimeout(resolve, 10))
      }
    },
  }
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch {
    // It ended meanwhile.
  }
}

function saysUp(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    let said = ''
    const timer = setTimeout(() => {
      if (child.pid !== undefined) send(child.pid, 'SIGKILL')
      reject(new Error(`the namespaces of the Pod were not up within ${patience / 1000} s`))
    }, patience)
    const done = (): void => {
      clearTimeout(timer)
      child.stdout!.destroy()
      child.stderr!.destroy()
    }
    child.stderr!.setEncoding('utf8').on('data', (text: string) => (said += text))
    child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      if (!text.includes('up')) return
      done()
      resolve()
    })
    child.once('error', (error) => {
      done()
      reject(error)
    })
    child.once('close', (code) => {
      done()
      reject(new Error(`the namespaces of the Pod could not be made (exit status ${code}): ${said.trim()}`))
    })
  })
}

/** Where a program is; containers bring their own PATH, so it is looked up once, with ours. */
function which(program: string): string {
  for (const folder of [...(process.env.PATH ?? '').split(':'), '/usr/bin', '/bin', '/usr/sbin', '/sbin']) {
    const file = join(folder, program)
    try {
      accessSync(file, constants.X_OK)
      return file
    } catch {
      // Not there, or not ours to run.
    }
  }
  throw new Error(`the program ${program} is not installed (Debian package util-linux)`)
}
