// What only the kernel can show: connections and datagrams that were redirected on their way, and addresses that are not ours. Two namespaces: a client, and a node between it and the world.
import { execFileSync } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { test } from 'tap'
import { Referee } from '../../lib/sockets/suite/suite.ts'
import type { Address } from '../../lib/sockets/seam.ts'
import { syscalls } from '../ffi/ffi.ts'
import { openEpoll } from './driver.ts'

const netNamespace = 0x4000_0000 // CLONE_NEWNET
const names = { client: `sy-sock-c-${process.pid}`, node: `sy-sock-n-${process.pid}` }
const ip = (...args: string[]): string => execFileSync('ip', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })

/** Runs `f` with this thread in a namespace: the sockets it opens belong there. */
function inside<T>(name: keyof typeof names, f: () => T): T {
  const sys = syscalls()
  const [there, here] = [openSync(`/run/netns/${names[name]}`, 'r'), openSync('/proc/thread-self/ns/net', 'r')]
  try {
    if (sys.setns(there, netNamespace) < 0) throw new Error('setns')
    return f()
  } finally {
    sys.setns(here, netNamespace)
    closeSync(there)
    closeSync(here)
  }
}

function setUp(): string | undefined {
  try {
    for (const name of Object.values(names)) {
      ip('netns', 'add', name)
      ip('-n', name, 'link', 'set', 'lo', 'up')
    }
    ip('-n', names.client, 'link', 'add', 'out', 'type', 'veth', 'peer', 'name', 'in', 'netns', names.node)
    for (const [ns, device, n] of [
      [names.client, 'out', '1'],
      [names.node, 'in', '2'],
    ] as const) {
      ip('-n', ns, 'address', 'add', `10.99.0.${n}/24`, 'dev', device)
      ip('-n', ns, '-6', 'address', 'add', `fd00:99::${n}/64`, 'dev', device, 'nodad')
      ip('-n', ns, 'link', 'set', device, 'up')
    }
    ip('-n', names.client, 'route', 'add', 'default', 'via', '10.99.0.2')
    ip('-n', names.client, '-6', 'route', 'add', 'default', 'via', 'fd00:99::2')
    return undefined
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

/** Rules for what comes in; `rule` is asked for each family. */
function rules(type: string, priority: number, lines: readonly string[]): void {
  const text = `flush ruleset\ntable inet t { chain c { type ${type} hook prerouting priority ${priority};\n${lines.join('\n')}\n}\n}\n`
  execFileSync('ip', ['netns', 'exec', names.node, 'nft', '-f', '-'], { input: text })
}

const broken = process.getuid?.() === 0 ? setUp() : 'needs root'
const driver = await openEpoll()
const text = (a: Address): string => `${a.host} ${a.port}`

if (broken !== undefined || typeof driver === 'string') test('redirects', async (t) => void t.pass(`${broken} ${String(driver)}`, { skip: broken ?? String(driver) }))
else {
  test('a redirected connection tells where its client wanted to go, one that was not, where it went', async (t) => {
    const seen: string[] = []
    const accept = (): Referee => new Referee({ opened: (r) => void seen.push(text(r.wire.local)), eof: (r) => r.wire.end() })
    const l = await inside('node', () => driver.listen({ host: '', port: 0 }, accept, { originalDestination: true }))
    rules('nat', -100, [`tcp dport 80 redirect to :${l.port}`])
    for (const [host, port] of [
      ['198.51.100.7', 80],
      ['2001:db8::7', 80],
      ['10.99.0.2', l.port],
    ] as const) {
      const c = new Referee()
      inside('client', () => driver.connect({ host, port }, c))
      await c.until(() => c.state !== 'new')
      t.equal(c.state, 'open', c.why ?? '')
      c.call(() => c.wire.end())
      await c.until(() => c.state === 'closed')
    }
    t.same(seen, ['198.51.100.7 80', '2001:db8::7 80', `10.99.0.2 ${l.port}`])
    l.close()
  })

  test('a transparent listener gets connections to addresses that are not the machine’s, and a transparent connection comes from one', async (t) => {
    const seen: string[] = []
    const accept = (): Referee => new Referee({ opened: (r) => void seen.push(`${r.wire.peer} to ${text(r.wire.local)}`), eof: (r) => r.wire.end() })
    const l = await inside('node', () => driver.listen({ host: '0.0.0.0', port: 0 }, accept, { transparent: true }))
    rules('filter', -150, [
      `meta nfproto ipv4 tcp dport 80 tproxy ip to :${l.port} meta mark set 1 accept`,
      `meta nfproto ipv4 udp dport 53 tproxy ip to :5353 meta mark set 1 accept`,
      'ip daddr 198.51.100.9 meta mark set 1',
    ])
    ip('-n', names.node, 'rule', 'add', 'fwmark', '1', 'lookup', '100')
    ip('-n', names.node, 'route', 'add', 'local', '0.0.0.0/0', 'dev', 'lo', 'table', '100')
    const c = new Referee()
    inside('client', () => driver.connect({ host: '198.51.100.7', port: 80 }, c))
    await c.until(() => c.state !== 'new')
    c.call(() => c.wire.end())
    await c.until(() => c.state === 'closed')
    t.same(seen, ['10.99.0.1 to 198.51.100.7 80'])

    const back = await inside('client', () => driver.listen({ host: '10.99.0.1', port: 0 }, accept))
    const from = { host: '198.51.100.9', port: 0 }
    const refused = new Referee()
    inside('node', () => driver.connect({ host: '10.99.0.1', port: back.port }, refused, { from }))
    await refused.until(() => refused.state === 'closed')
    t.match(refused.why ?? '', /^EADDRNOTAVAIL/, 'not without asking for it')
    const d = new Referee()
    inside('node', () => driver.connect({ host: '10.99.0.1', port: back.port }, d, { from, transparent: true }))
    await d.until(() => d.state !== 'new')
    t.equal(d.state, 'open', d.why ?? '')
    d.call(() => d.wire.end())
    await d.until(() => d.state === 'closed')
    t.same(seen.slice(1), [`198.51.100.9 to 10.99.0.1 ${back.port}`])
    back.close()
    l.close()
  })

  test('a datagram that was redirected tells where it was sent to, and is answered from there', async (t) => {
    const asked: string[] = []
    const server = await inside('node', () =>
      driver.bind(
        { host: '0.0.0.0', port: 5353 },
        (batch) => {
          for (let i = 0; i < batch.count; i++) {
            asked.push(text(batch.local(i)))
            batch.answer(i, batch.bytes, batch.start(i), batch.end(i))
          }
        },
        { transparent: true, originalDestination: true },
      ),
    )
    const answered = new Promise<string>((resolve) => {
      void inside('client', () => driver.bind({ host: '10.99.0.1', port: 0 }, (batch) => resolve(`${batch.bytes.toString('latin1', batch.start(0), batch.end(0))} from ${text(batch.peer(0))}`))).then(
        (b) => b.send(Buffer.from('who?'), 0, 4, { host: '198.51.100.8', port: 53 }),
      )
    })
    const answer = await Promise.race([answered, new Promise<string>((resolve) => setTimeout(() => resolve('no answer'), 10_000).unref())])
    t.same(asked, ['198.51.100.8 53'])
    t.match(answer, /^who\? from 198\.51\.100\.8 /)
    server.close()
  })
}

test('the end', async () => {
  if (typeof driver !== 'string') await driver.close()
  for (const name of Object.values(names)) {
    try {
      ip('netns', 'delete', name)
    } catch {
      // It was not made.
    }
  }
})
