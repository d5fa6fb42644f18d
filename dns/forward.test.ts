import { test, type Test } from 'tap'
import { silent } from '../lib/log.ts'
import { openNode } from '../lib/sockets/node/driver.ts'
import { Forwarder, forwardDefaults, parseResolvConf, type ForwardOptions } from './forward.ts'
import { printAnswer } from './testing/site.ts'
import { a, cname, upstream, type Behaviour } from './testing/upstream.ts'
import { fold, nameOf, type Name } from './wire/name.ts'
import { Flag } from './wire/types.ts'

const asked = (name: string, type = 1) => ({ name: fold(nameOf(name)), type, dnssec: false, checkingDisabled: false })
const ten = 'NOERROR\nexample.com. 60 A 10.0.0.1'

/** Milliseconds after which a server that says nothing is given up: short, since the test waits for it, but not so short that one that answers on a busy machine is. */
const patience = 900

async function forwarding(t: Test, behaviours: readonly Behaviour[], options: Partial<ForwardOptions> = {}) {
  const driver = openNode()
  const servers = await Promise.all(behaviours.map((b) => upstream(b)))
  const told: string[] = []
  const forwarder = new Forwarder(
    driver,
    { ...forwardDefaults, tryTimeout: patience, timeout: 4 * patience, healthCheck: 100, upstreams: servers.map((s) => ({ host: '127.0.0.1', port: s.port })), ...options },
    silent,
    {
      health: (to, healthy) => told.push(`${servers.findIndex((s) => to.endsWith(`:${s.port}`))} ${healthy}`),
      rejected: () => told.push('rejected'),
    },
  )
  t.teardown(async () => {
    forwarder.close()
    await Promise.all(servers.map((s) => s.close()))
    await driver.close()
  })
  return { forwarder, servers, told }
}

const good: Behaviour = () => ({ answers: [a('example.com', '10.0.0.1')] })
const failing: Behaviour = () => ({ rcode: 2 })
const silentServer: Behaviour = () => undefined

test('a question goes out with a random id and port, and its answer comes back', async (t) => {
  const f = await forwarding(t, [good])
  for (let i = 0; i < 40; i++) t.equal(printAnswer(await f.forwarder.ask(asked('example.com'))), ten)
  const all = f.servers[0]!.asked
  t.ok(new Set(all.map((q) => q.message.id)).size > 30, 'ids differ')
  t.ok(new Set(all.map((q) => q.port)).size > 3, 'ports differ')
  t.equal(all[0]!.message.edns?.size, 1232)
  t.equal(all[0]!.message.flags & Flag.RD, Flag.RD)
})

test('the next server is asked after silence, SERVFAIL and REFUSED; not after NXDOMAIN', async (t) => {
  for (const [first, answer, second] of [
    [silentServer, ten, 1],
    [failing, ten, 1],
    [() => ({ rcode: 5 }), ten, 1],
    [() => ({ rcode: 3 }), 'NXDOMAIN', 0],
    [() => ({}), 'NOERROR', 0],
  ] as const) {
    const f = await forwarding(t, [first, good])
    t.equal(printAnswer(await f.forwarder.ask(asked('example.com'))), answer)
    t.equal(f.servers[1]!.asked.length, second)
  }
})

test('when all fail, the last failure is the answer; when all are silent, SERVFAIL', async (t) => {
  const f = await forwarding(t, [failing, () => ({ rcode: 5 })])
  t.equal(printAnswer(await f.forwarder.ask(asked('example.com'))), 'REFUSED')
  const g = await forwarding(t, [silentServer, silentServer])
  t.equal(printAnswer(await g.forwarder.ask(asked('example.com'))), 'SERVFAIL')
  const none = await forwarding(t, [])
  t.equal(printAnswer(await none.forwarder.ask(asked('example.com'))), 'SERVFAIL', 'and at once without any')
})

test('answers that are none are ignored: wrong id, wrong question, wrong port, garbage', async (t) => {
  const f = await forwarding(t, [
    () => ({
      answers: [a('example.com', '10.0.0.1')],
      before: [
        (q) => Buffer.concat([Buffer.from([(q[0]! + 1) & 255, q[1]!, 0x81, 0x80]), q.subarray(4)]),
        (q) => {
          const b = Buffer.from(q)
          b[2] = 0x81
          b[13] = 0x78
          return b
        },
        (q) => Buffer.concat([q.subarray(0, 2), Buffer.from([0x81, 0x80, 0xff, 0xff])]),
      ],
    }),
  ])
  t.equal(printAnswer(await f.forwarder.ask(asked('example.com'))), ten)
  const other = await forwarding(t, [() => ({ answers: [a('example.com', '10.6.6.6')], elsewhere: true })], { tryTimeout: 200, timeout: 200 })
  t.equal(printAnswer(await other.forwarder.ask(asked('example.com'))), 'SERVFAIL', 'from another port')
})

test('after several wrong answers TCP is taken', async (t) => {
  const wrong = (q: Buffer): Buffer => {
    const b = Buffer.from(q)
    b[2] = 0x81
    b[13] = 0x78
    return b
  }
  const f = await forwarding(t, [(_m, protocol) => ({ answers: [a('example.com', protocol === 'tcp' ? '10.0.0.1' : '10.6.6.6')], before: protocol === 'tcp' ? [] : [wrong, wrong, wrong, wrong] })])
  t.equal(printAnswer(await f.forwarder.ask(asked('example.com'))), ten)
})

test('what was cut is asked for over TCP; without TCP the cut answer is passed on', async (t) => {
  const f = await forwarding(t, [(_m, protocol) => (protocol === 'tcp' ? { answers: [a('example.com', '10.0.0.1')] } : { truncated: true })])
  t.equal(printAnswer(await f.forwarder.ask(asked('example.com'))), ten)
  t.equal(printAnswer(await f.forwarder.ask(asked('example.com'))), ten)
  t.equal(new Set(f.servers[0]!.asked.filter((q) => q.protocol === 'tcp').map((q) => q.port)).size, 1, 'one connection for both')
  const g = await forwarding(t, [(_m, protocol) => (protocol === 'tcp' ? undefined : { truncated: true, answers: [a('example.com', '10.0.0.1')] })])
  const answer = await g.forwarder.ask(asked('example.com'))
  t.equal(answer.truncated, true)
})

test('force_tcp: many questions on one connection, answered in any order', async (t) => {
  const f = await forwarding(
    t,
    [
      async (m) => {
        await new Promise((r) => setTimeout(r, m.questions[0]!.name.startsWith('\x01a') ? 80 : 0))
        return { answers: [{ ...a('x', '10.0.0.1'), name: m.questions[0]!.name }] }
      },
    ],
    { forceTcp: true },
  )
  const order: string[] = []
  await Promise.all(
    ['a.test', 'b.test', 'c.test'].map(async (name) => {
      t.match(printAnswer(await f.forwarder.ask(asked(name))), name)
      order.push(name)
    }),
  )
  t.equal(order.at(-1), 'a.test')
  t.equal(new Set(f.servers[0]!.asked.map((q) => q.port)).size, 1)
  t.ok(f.servers[0]!.asked.every((q) => q.protocol === 'tcp'))
})

test('equal questions are asked once, and no more than allowed wait', async (t) => {
  let release = (): void => {}
  const held = new Promise<void>((r) => (release = r))
  const f = await forwarding(
    t,
    [
      async (m) => {
        await held
        return { answers: [{ ...a('x', '10.0.0.1'), name: m.questions[0]!.name }] }
      },
    ],
    { maxConcurrent: 2, tryTimeout: 20_000, timeout: 30_000 },
  )
  const same = [f.forwarder.ask(asked('a.test')), f.forwarder.ask(asked('a.test')), f.forwarder.ask(asked('a.test', 28))]
  t.equal(printAnswer(await f.forwarder.ask(asked('b.test'))), 'REFUSED')
  t.same(f.told, ['rejected'])
  while (f.servers[0]!.asked.length < 2) await new Promise((r) => setTimeout(r, 5))
  release()
  t.equal(new Set(await Promise.all(same)).size, 2)
  t.equal(f.servers[0]!.asked.length, 2)
})

test('a server that does not answer is left out, and taken back when it does', async (t) => {
  const f = await forwarding(t, [silentServer, good])
  for (let i = 0; i < 2; i++) await f.forwarder.ask(asked('example.com'))
  t.same(f.told, ['0 false'])
  const before = f.servers[1]!.asked.length
  t.equal(printAnswer(await f.forwarder.ask(asked('example.com'))), ten)
  t.equal(f.servers[1]!.asked.length, before + 1, 'the other one is asked')
  f.servers[0]!.behave = good
  const late = performance.now() + 30_000
  while (f.told.length < 2 && performance.now() < late) await new Promise((r) => setTimeout(r, 20))
  t.same(f.told, ['0 false', '0 true'])
})

test('policies', async (t) => {
  for (const [policy, first] of [
    ['sequential', [20, 20]],
    ['round_robin', [9, 11]],
    ['random', [1, 19]],
  ] as const) {
    const f = await forwarding(t, [good, good], { policy })
    for (let i = 0; i < 20; i++) await f.forwarder.ask(asked('example.com'))
    const n = f.servers[0]!.asked.length
    t.ok(n >= first[0] && n <= first[1], `${policy}: ${n} of 20 to the first`)
  }
})

test('records that do not belong to the question are left out', async (t) => {
  const f = await forwarding(t, [() => ({ answers: [cname('Example.com', 'www.example.net'), a('www.example.net', '10.0.0.2'), a('bank.example', '10.6.6.6')] })])
  t.equal(printAnswer(await f.forwarder.ask(asked('example.com'))), 'NOERROR\nexample.com. 60 CNAME www.example.net.\nwww.example.net. 60 A 10.0.0.2')
  t.equal(fold(nameOf('Example.com')), nameOf('example.com') as Name)
})

test('servers of a resolv.conf', (t) => {
  t.same(parseResolvConf('# x\nnameserver 10.0.0.2\nsearch a b\n nameserver fe80::1%eth0 \nnameserver 8.8.8.8 # comment\noptions ndots:5\n'), ['10.0.0.2', 'fe80::1', '8.8.8.8'])
  t.same(parseResolvConf(''), [])
  t.end()
})
