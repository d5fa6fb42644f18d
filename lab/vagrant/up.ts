import { execFile, spawn } from 'node:child_process'
import { access, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { projectRoot } from '../launcher.ts'
import { onPath } from '../vm/kernel.ts'

const run = promisify(execFile)

/** How one command ended. */
export interface Ended {
  readonly status: number
  readonly out: string
  readonly err: string
  /** Milliseconds. */
  readonly took: number
}

/** Why `vagrant up` with libvirt cannot be tried here, with what to do; undefined if it can. */
export async function vagrantLacking(): Promise<string | undefined> {
  if (process.getuid?.() !== 0) return 'libvirt is started by hand: root is needed'
  for (const [program, from] of [
    ['vagrant', 'vagrant vagrant-libvirt'],
    ['libvirtd', 'libvirt-daemon-system libvirt-daemon-driver-qemu libvirt-clients dnsmasq-base'],
    ['qemu-system-x86_64', 'qemu-system-x86 qemu-utils'],
    ['rsync', 'rsync'],
  ] as const)
    if (!(await onPath(program))) return `apt-get install --no-install-recommends ${from}`
  return undefined
}

/** The lab of the Vagrantfile under libvirt; where no libvirtd runs, one is started in a network namespace of its own, and `close` ends it. */
export class VagrantLab {
  readonly #within: readonly string[]
  readonly #env: NodeJS.ProcessEnv
  readonly #said: (what: string) => void
  #ssh: string | undefined

  private constructor(within: readonly string[], env: NodeJS.ProcessEnv, said: (what: string) => void) {
    this.#within = within
    this.#env = env
    this.#said = said
  }

  /** `env`: the knobs, `LAB_MODE` and so on. A box is built if there is none (two minutes). */
  static async open(env: Readonly<Record<string, string>>, said: (what: string) => void): Promise<VagrantLab> {
    const box = join(projectRoot, '.vagrant/switchyard-lab.box')
    if (
      !(await access(box).then(
        () => true,
        () => false,
      ))
    ) {
      said('building a box')
      await run(join(projectRoot, 'lab/vagrant/build-box'), [], { maxBuffer: 1 << 26 })
    }
    const running = await run('virsh', ['-c', 'qemu:///system', 'version']).then(
      () => true,
      () => false,
    )
    if (!running) await run(join(projectRoot, 'lab/vagrant/libvirt'), ['start'])
    const own = await run('ip', ['netns', 'list']).then(({ stdout }) => stdout.includes('switchyard-vagrant'))
    const within = own ? ['ip', 'netns', 'exec', 'switchyard-vagrant'] : []
    return new VagrantLab(within, { ...process.env, LAB_DRIVER: 'qemu', VAGRANT_DEFAULT_PROVIDER: 'libvirt', VAGRANT_CHECKPOINT_DISABLE: '1', ...env }, said)
  }

  /** Runs a command of the host where it reaches the machines. */
  host(command: readonly string[], timeout = 1_800_000): Promise<Ended> {
    const [program, ...args] = [...this.#within, ...command]
    const began = performance.now()
    return new Promise((resolve, reject) => {
      const child = spawn(program!, args, { cwd: projectRoot, env: this.#env, stdio: ['ignore', 'pipe', 'pipe'], timeout })
      let [out, err] = ['', '']
      child.stdout.on('data', (b: Buffer) => (out += b.toString()))
      child.stderr.on('data', (b: Buffer) => (err += b.toString()))
      child.on('error', reject)
      child.on('close', (status) => resolve({ status: status ?? 255, out, err, took: performance.now() - began }))
    })
  }

  /** `vagrant …`; rejects with its last lines if it fails. */
  async vagrant(...args: string[]): Promise<Ended> {
    this.#said(`vagrant ${args.join(' ')}`)
    const ended = await this.host(['vagrant', ...args])
    if (ended.status !== 0) throw new Error(`vagrant ${args.join(' ')} ended with ${ended.status}:\n${`${ended.out}${ended.err}`.split('\n').slice(-40).join('\n')}`)
    this.#said(`${(ended.took / 1000).toFixed(0)} s: vagrant ${args.join(' ')}`)
    return ended
  }

  /** Runs a shell line on a machine, by ssh as Vagrant set it up. */
  async on(node: string, line: string, timeout = 120_000): Promise<Ended> {
    this.#ssh ??= await this.#config()
    return this.host(['ssh', '-F', this.#ssh, '-o', 'ConnectTimeout=30', node, line], timeout)
  }

  /** To be called when machines came or went: their addresses may be others. */
  async forget(): Promise<void> {
    if (this.#ssh !== undefined) await rm(join(this.#ssh, '..'), { recursive: true, force: true })
    this.#ssh = undefined
  }

  async #config(): Promise<string> {
    const file = join(await mkdtemp(join(tmpdir(), 'switchyard-vagrant-')), 'ssh')
    await writeFile(file, (await this.host(['vagrant', 'ssh-config'])).out, { mode: 0o600 })
    return file
  }

  async close(): Promise<void> {
    await this.vagrant('destroy', '-f')
    await this.forget()
    if (this.#within.length > 0) await run(join(projectRoot, 'lab/vagrant/libvirt'), ['stop'])
  }
}
