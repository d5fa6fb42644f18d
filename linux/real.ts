import { spawn } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import type { Bytes, Family, Kernel, Netlink, NetlinkProtocol, NftObject } from './kernel.ts'

export type IptablesVariant = 'legacy' | 'nf_tables'

/** How the kernel of this machine (or network namespace) is spoken to. */
export interface RealKernelOptions {
  /** `auto` takes the one whose rules are there, else the one the machine's `iptables` is. */
  readonly iptables?: 'auto' | IptablesVariant
  /** Opens a netlink socket; without it `netlink` throws. */
  readonly openNetlink?: (protocol: NetlinkProtocol) => Netlink
  /** Seconds that iptables waits for the lock it shares with others. */
  readonly lockSeconds?: number
}

/** The kernel this process runs on, through its own tools: one process per call, everything in batches. */
export function realKernel(options: RealKernelOptions = {}): Kernel {
  const lock = ['-w', String(options.lockSeconds ?? 30)]
  let variant: Promise<IptablesVariant> | undefined
  const variantNow = (): Promise<IptablesVariant> => (variant ??= options.iptables === undefined || options.iptables === 'auto' ? findVariant() : Promise.resolve(options.iptables))
  const tool = async (family: Family, what: 'save' | 'restore'): Promise<string> => `${family === 4 ? 'iptables' : 'ip6tables'}-${(await variantNow()) === 'legacy' ? 'legacy' : 'nft'}-${what}`
  return {
    iptables: (family: Family) => ({
      restore: async (text, signal) => void (await run(await tool(family, 'restore'), ['--noflush', ...lock], { input: text, signal })),
      save: async (tables) => {
        const name = await tool(family, 'save')
        const parts = []
        for (const table of tables) parts.push(await run(name, ['-t', table]))
        return parts.join('')
      },
      variant: variantNow,
    }),
    nft: {
      run: async (script, signal) => void (await run('nft', ['-f', '-'], { input: script, signal })),
      list: async (table) => {
        const text = await run('nft', ['-j', 'list', 'table', ...table.split(' ')])
        return (JSON.parse(text) as { nftables: NftObject[] }).nftables
      },
    },
    ipset: { restore: async (text) => void (await run('ipset', ['restore', '-exist'], { input: text })), save: () => run('ipset', ['save']) },
    netlink: (protocol) => {
      if (options.openNetlink === undefined) throw new Error(`netlink (${protocol}) is not available here`)
      return options.openNetlink(protocol)
    },
    sysctl: {
      get: async (name) => (await readFile(sysctlPath(name), 'utf8')).trim(),
      set: (name, value) => writeFile(sysctlPath(name), value),
    },
  }
}

/** `net.ipv4.ip_forward` or `net/ipv4/conf/eth0.1/forwarding` as a file: the form with slashes is for names that hold dots. */
function sysctlPath(name: string): string {
  return `/proc/sys/${name.includes('/') ? name : name.replaceAll('.', '/')}`
}

interface RunOptions {
  readonly input?: Bytes
  readonly signal?: AbortSignal
}

/** Runs a tool to its end and returns what it printed; rejects with its own words. */
export function run(name: string, args: readonly string[], { input, signal }: RunOptions = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    // The tools read the locale for nothing; the paths are those of the root user, whatever ours are.
    const env = { ...process.env, LC_ALL: 'C', PATH: `${process.env.PATH ?? ''}:/usr/local/sbin:/usr/sbin:/sbin` }
    const child = spawn(name, args, { env, stdio: ['pipe', 'pipe', 'pipe'], ...(signal === undefined ? {} : { signal }) })
    const out: Buffer[] = []
    const err: Buffer[] = []
    child.stdout.on('data', (b: Buffer) => out.push(b))
    child.stderr.on('data', (b: Buffer) => err.push(b))
    child.on('error', (error: NodeJS.ErrnoException) => reject(new Error(error.code === 'ENOENT' ? `${name} is not installed` : `${name}: ${error.message}`, { cause: error })))
    child.on('close', (code) => {
      if (code === 0) resolve(Buffer.concat(out).toString('utf8'))
      else reject(new Error(`${name} ${args.join(' ')} failed: ${Buffer.concat(err).toString('utf8').trim() || `status ${code}`}`))
    })
    // A tool that gave up early says why on stderr; the broken pipe is no news beside it.
    child.stdin.on('error', () => {})
    child.stdin.end(input)
  })
}

async function findVariant(): Promise<IptablesVariant> {
  // Names of the tables that legacy rules live in; reading it loads no module, as `iptables-legacy-save` would.
  const legacyTables = await readFile('/proc/net/ip_tables_names', 'utf8').catch(() => '')
  if (legacyTables.trim() !== '') {
    const count = async (name: string): Promise<number> => (await run(name, []).catch(() => '')).split('\n').filter((l) => l.startsWith('-A ')).length
    const [legacy, nft] = [await count('iptables-legacy-save'), await count('iptables-nft-save')]
    if (legacy !== nft) return legacy > nft ? 'legacy' : 'nf_tables'
  }
  const version = await run('iptables', ['--version'])
  return version.includes('nf_tables') ? 'nf_tables' : 'legacy'
}
