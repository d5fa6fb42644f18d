import { explainError } from '../../lib/log.ts'
import type { Kernel } from '../../linux/kernel.ts'

/** The kubelet's own, whoever proxies. */
const kubelets = /^KUBE-(KUBELET-|FIREWALL$|IPTABLES-HINT$)/

/** The `iptables-restore` text that takes kube-proxy's chains, and the rules that lead to them, out of what `iptables-save` printed; empty if there are none. */
export function withoutKubeProxy(saved: string): string {
  const out: string[] = []
  let table = ''
  let chains: string[] = []
  let leading: string[] = []
  const flush = (): void => {
    if (chains.length + leading.length > 0) out.push(`*${table}`, ...chains.map((c) => `:${c} - [0:0]`), ...leading, ...chains.map((c) => `-X ${c}`), 'COMMIT')
    chains = []
    leading = []
  }
  for (const line of saved.split('\n')) {
    if (line.startsWith('*')) {
      flush()
      table = line.slice(1)
    } else if (line.startsWith(':KUBE-')) {
      const name = line.slice(1, line.indexOf(' '))
      if (!kubelets.test(name)) chains.push(name)
    } else if (line.startsWith('-A ') && !line.startsWith('-A KUBE-')) {
      const to = / -[jg] (KUBE-\S+)/.exec(line)?.[1]
      if (to !== undefined && !kubelets.test(to)) leading.push(`-D${line.slice(2)}`)
    }
  }
  flush()
  return out.length === 0 ? '' : `${out.join('\n')}\n`
}

/** Removes what kube-proxy left in the tables of `kernel`, in its iptables, ipvs and nftables modes. */
export async function removeKubeProxy(kernel: Kernel, signal: AbortSignal): Promise<readonly string[]> {
  const problems: string[] = []
  const attempt = async (what: string, f: () => Promise<void>): Promise<void> => {
    try {
      await f()
    } catch (error) {
      const why = explainError(error)
      if (!/is not installed|No such file|does not exist/.test(why)) problems.push(`${what}: ${why}`)
    }
  }
  for (const family of [4, 6] as const) {
    await attempt(`IPv${family} rules`, async () => {
      const text = withoutKubeProxy(await kernel.iptables(family).save(['nat', 'filter', 'mangle']))
      if (text !== '') await kernel.iptables(family).restore(text, signal)
    })
    await attempt(`nftables table kube-proxy of IPv${family}`, () =>
      kernel.nft.run(`add table ${family === 4 ? 'ip' : 'ip6'} kube-proxy\ndelete table ${family === 4 ? 'ip' : 'ip6'} kube-proxy\n`, signal),
    )
  }
  await attempt('ipsets', async () => {
    const names = [...(await kernel.ipset.save()).matchAll(/^create (KUBE-\S+)/gm)].map((m) => m[1]!)
    if (names.length > 0) await kernel.ipset.restore(names.map((n) => `destroy ${n}\n`).join(''))
  })
  return problems
}
