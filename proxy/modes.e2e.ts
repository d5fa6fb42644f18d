import { execFileSync } from 'node:child_process'
import { sleep } from '../lib/lifecycle.ts'
import { silent } from '../lib/log.ts'
import { parse } from '../lib/options.ts'
import { openNetlink } from '../linux/netlink/socket.ts'
import { realKernel } from '../linux/real.ts'
import type { Backend } from './backend.ts'
import { modeNamed } from './backends.ts'
import { flags, proxyOptions } from './options.ts'
import { compileGroup } from './testing/agree.ts'
import { insideNamespaces, Scene } from './testing/packets.ts'

/** The modes in the order they follow each other here; each pair of neighbours is a switch. */
const order = ['iptables nft', 'nftables', 'iptables legacy', 'userspace', 'nftables', 'userspace', 'iptables nft', 'iptables legacy']

if (insideNamespaces(import.meta.filename)) {
  const { t: root, test } = await import('tap')
  root.setTimeout(280_000)
  const forever = new AbortController().signal
  const scene = await Scene.build()
  const { table } = compileGroup('usual')

  const load = async (name: string): Promise<Backend> => {
    const [mode, variant] = name.split(' ')
    const kernel = realKernel({ iptables: variant === 'legacy' ? 'legacy' : 'nf_tables', openNetlink })
    return modeNamed(mode!)!.load({ kernel, log: silent, options: proxyOptions(parse(flags, ['--node', 'here', '--mode', mode!]).values, 'here') })
  }

  /** Connects again and again, from a pod and from outside, until told to stop; returns what failed. */
  const knocking = (): (() => Promise<{ readonly tries: number; readonly failed: readonly string[] }>) => {
    const failed: string[] = []
    let tries = 0
    let stop = false
    const knock = async (from: 'pod b' | 'client', host: string, port: number): Promise<void> => {
      while (!stop) {
        const o = await scene.ask(from, { protocol: 'tcp', host, port, timeout: 20_000 })
        tries++
        if (o.kind !== 'answered') failed.push(`${from} to ${host}:${port}: ${o.kind} ${o.error ?? ''}`)
        await sleep(1)
      }
    }
    const all = Promise.all([knock('pod b', '172.30.0.1', 80), knock('client', '192.168.50.1', 30_001), knock('client', '203.0.113.1', 80)])
    return async () => {
      stop = true
      await all
      return { tries, failed }
    }
  }

  const rules = (): string =>
    ['iptables-legacy-save', 'iptables-nft-save', 'ip6tables-legacy-save', 'ip6tables-nft-save'].map((tool) => execFileSync(tool, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })).join('')
  const leftOf = {
    iptables: () => /SY-/.test(rules()) || /SY-/.test(execFileSync('ipset', ['save'], { encoding: 'utf8' })),
    nftables: () => /table ip6? switchyard\n/.test(tables()),
    userspace: () => /switchyard-userspace/.test(tables()),
  }
  const tables = (): string => execFileSync('nft', ['list', 'tables'], { encoding: 'utf8' })

  test('one mode follows another: nobody is refused meanwhile, and nothing is left', async (t) => {
    let now: Backend | undefined
    for (const name of order) {
      const next = await load(name)
      const why = await next.probe()
      if (why !== undefined) {
        t.pass(name, { skip: why })
        continue
      }
      const stop = now === undefined ? undefined : knocking()
      if (stop !== undefined) await sleep(50)
      await next.apply(table, forever)
      if (now !== undefined) {
        await now.cleanup()
        await now.close()
      }
      if (stop !== undefined) {
        await sleep(50)
        const { tries, failed } = await stop()
        t.same(failed, [], `to ${name}: none of ${tries} connections failed`)
        t.ok(tries >= 6, 'there were some')
      }
      for (const [mode, left] of Object.entries(leftOf)) if (!name.startsWith(mode)) t.notOk(left(), `${name}: nothing is left of ${mode}`)
      now = next
    }
    await now!.cleanup()
    await now!.close()
    for (const [mode, left] of Object.entries(leftOf)) t.notOk(left(), `at the end nothing is left of ${mode}`)
  })

  for (const name of ['iptables nft', 'iptables legacy', 'nftables']) {
    test(`connections made during 12 refills: none fails: ${name}`, async (t) => {
      const first = await load(name)
      await first.apply(table, forever)
      const stop = knocking()
      for (let i = 0; i < 12; i++) {
        // A new process knows nothing and writes everything.
        const again = await load(name)
        await again.apply(table, forever)
      }
      const { tries, failed } = await stop()
      t.same(failed, [], `none of ${tries}`)
      await first.cleanup()
    })
  }
  void test('the end', async () => scene.close())
}
