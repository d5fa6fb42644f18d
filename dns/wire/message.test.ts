import dnsPacket from 'dns-packet'
import { test } from 'tap'
import { printMessage } from '../testing/site.ts'
import { addressData, printData, soaData, srvData, txtData, u16 } from './data.ts'
import { decode, encode, Malformed, receive, type Draft, type Rec } from './message.ts'
import { fold, labelsOf, nameOf, parseName, printName, readName, root, within, type Name } from './name.ts'
import { Class, Flag, Rcode, Type, typeName, typeNumber } from './types.ts'

const rec = (name: string, type: number, data: string, ttl = 5): Rec => ({ name: nameOf(name), type, class: Class.IN, ttl, data })
const question = { name: nameOf('api.shop.svc.cluster.local'), type: Type.A as number, class: Class.IN as number }
const hex = (text: string): Buffer => Buffer.from(text.replaceAll(/[^0-9a-f]/gi, ''), 'hex')
const write = (draft: Partial<Draft>, limit?: number): Buffer => {
  const b = Buffer.alloc(70_000)
  return Buffer.from(b.subarray(0, encode({ id: 0x1234, flags: Flag.QR, rcode: 0, question, ...draft }, b, 0, limit)))
}

test('names from text and back', (t) => {
  for (const [text, printed, labels] of [
    ['.', '.', 0],
    ['api.shop', 'api.shop.', 2],
    ['api.shop.', 'api.shop.', 2],
    ['a\\.b.c', 'a\\.b.c.', 2],
    ['a\\\\b', 'a\\\\b.', 1],
    ['\\000\\255', '\\000\\255.', 1],
    ['a b', 'a\\032b.', 1],
    ['_http._tcp.x', '_http._tcp.x.', 3],
    ['x'.repeat(63), `${'x'.repeat(63)}.`, 1],
  ] as const) {
    const name = parseName(text)
    t.equal(name === undefined ? undefined : printName(name), printed, JSON.stringify(text))
    t.equal(labelsOf(name!).length, labels)
  }
  for (const text of ['a..b', '.a', 'x'.repeat(64), '\\256', 'a\\', 'ä€', Array.from({ length: 130 }, () => 'a').join('.')]) t.equal(parseName(text), undefined, `${JSON.stringify(text)} is none`)
  t.equal(parseName(Array.from({ length: 127 }, () => 'a').join('.'))!.length, 255, 'the longest name')
  t.end()
})

test('only ASCII letters are folded', (t) => {
  const all = Array.from({ length: 63 }, (_, i) => String.fromCharCode(i + 64)).join('')
  const high = Array.from({ length: 63 }, (_, i) => String.fromCharCode(i + 0xc0)).join('')
  t.equal(fold(`\x3f${all}\0` as Name), `\x3f@abcdefghijklmnopqrstuvwxyz${all.slice(27)}\0`)
  t.equal(fold(`\x3f${high}\0` as Name), `\x3f${high}\0`)
  t.end()
})

test('a name lies in a zone only where a label begins', (t) => {
  const zone = nameOf('cluster.local')
  for (const [name, inside] of [
    ['cluster.local', true],
    ['a.cluster.local', true],
    ['xcluster.local', false],
    ['local', false],
    ['cluster\\.local', false],
  ] as const)
    t.equal(within(nameOf(name), zone), inside, name)
  // A label that holds the zone's octets is no zone.
  t.equal(within(`\x0f${'\x07cluster\x05local'}\0` as Name, zone), false)
  t.equal(within(zone, root), true)
  t.end()
})

test('names in messages: compression, and everything that is wrong with it, in bounded time', (t) => {
  const at = (text: string, p: number): string | undefined => {
    const b = hex(text)
    const read = readName(b, 0, p, b.length)
    return read === undefined ? undefined : `${printName(read.name)} ${read.next}`
  }
  const head = '00'.repeat(12)
  t.equal(at(`${head} 01 61 00`, 12), 'a. 15')
  t.equal(at(`${head} 01 61 00 01 62 c0 0c`, 15), 'b.a. 19')
  t.equal(at(`${head} c0 0c`, 12), undefined, 'a pointer to itself')
  t.equal(at(`${head} c0 0e c0 0c`, 12), undefined, 'two that point at each other')
  t.equal(at(`${head} 01 61 c0 0c`, 12), undefined, 'a loop with a label')
  t.equal(at(`${head} c0 ff`, 12), undefined, 'forwards')
  t.equal(at(`${head} c0 00 00`, 12), undefined, 'into the header')
  t.equal(at(`${head} 01 61 00 c0`, 15), undefined, 'half a pointer')
  t.equal(at(`${head} 05 61`, 12), undefined, 'a label cut off')
  t.equal(at(`${head} 01 61`, 12), undefined, 'no end')
  t.equal(at(`${head} 41 61 00`, 12), undefined, 'a reserved kind of label')
  t.equal(at(`${head} 80 61 00`, 12), undefined, 'another one')
  const longest = `${'3f' + '61'.repeat(63)}`.repeat(3)
  t.equal(at(`${head} ${longest} 3d ${'61'.repeat(61)} 00`, 12)?.split(' ')[1], String(12 + 255), '255 octets')
  t.equal(at(`${head} ${longest} 3e ${'61'.repeat(62)} 00`, 12), undefined, '256 octets')
  // A chain of pointers, each one step back, then a name asked for at its end.
  let chain = '00'.repeat(12) + '00'
  for (let i = 0; i < 8000; i++) chain += (0xc000 | (i === 0 ? 12 : 13 + 2 * (i - 1))).toString(16)
  const b = hex(chain)
  const began = performance.now()
  t.equal(readName(b, 0, b.length - 2, b.length)?.name, root)
  t.ok(performance.now() - began < 50)
  t.end()
})

test('every kind of record goes through unchanged, also for a second decoder', (t) => {
  const name = 'api.shop.svc.cluster.local'
  const soa = soaData({ mname: nameOf('ns.dns.cluster.local'), rname: nameOf('hostmaster.cluster.local'), serial: 7, refresh: 1, retry: 2, expire: 3, minimum: 4 })
  const records: readonly (readonly [rec: Rec, printed: string])[] = [
    [rec(name, Type.A, addressData('10.96.8.20')!), '10.96.8.20'],
    [rec(name, Type.AAAA, addressData('fd00::1')!), 'fd00::1'],
    [rec(name, Type.CNAME, nameOf('web.example.org')), 'web.example.org.'],
    [rec(name, Type.PTR, nameOf(name)), `${name}.`],
    [rec(name, Type.SRV, srvData(0, 100, 80, nameOf(name))), `0 100 80 ${name}.`],
    [rec(name, Type.MX, u16(10) + nameOf('mail.example.org')), '10 mail.example.org.'],
    [rec(name, Type.TXT, txtData('a', 'b"c')), '"a" "b\\"c"'],
    [rec('cluster.local', Type.SOA, soa), 'ns.dns.cluster.local. hostmaster.cluster.local. 7 1 2 3 4'],
    [rec(name, 4711, '\x01\x02\xff'), '\\# 3 0102ff'],
    [rec(name, Type.HTTPS, '\0\x01\0'), '\\# 3 000100'],
    [
      rec(name, Type.NAPTR, `${u16(1)}${u16(2)}\x01s\x03sip\x00${nameOf('sip.example.org')}`),
      `\\# ${u16(1).length + 2 + 2 + 4 + 1 + 17} ${Buffer.from(`${u16(1)}${u16(2)}\x01s\x03sip\x00${nameOf('sip.example.org')}`, 'latin1').toString('hex')}`,
    ],
  ]
  for (const [r, printed] of records) {
    t.equal(printData(r.type, r.data), printed, typeName(r.type))
    const b = write({ answers: [r], edns: { size: 1232, dnssec: true } })
    t.same(decode(b).answers, [r], `${typeName(r.type)}: read again`)
    const other = dnsPacket.decode(b)
    t.equal(other.answers!.length, 1, `${typeName(r.type)}: read by dns-packet`)
    t.equal(other.answers![0]!.name, printName(r.name).slice(0, -1))
    if (r.type === Type.SRV) t.match(other.answers![0], { data: { port: 80, weight: 100, target: name } })
    if (r.type === Type.SOA) t.match(other.answers![0], { data: { mname: 'ns.dns.cluster.local', minimum: 4 } })
    t.equal(other.additionals!.length, 1, 'with OPT')
  }
  t.end()
})

test('what dns-packet writes is read', (t) => {
  const b = dnsPacket.encode({
    type: 'response',
    id: 7,
    flags: dnsPacket.AUTHORITATIVE_ANSWER,
    questions: [{ type: 'A', name: 'Api.shop' }],
    answers: [
      { type: 'A', name: 'Api.shop', ttl: 5, data: '10.0.0.1' },
      { type: 'MX', name: 'Api.shop', ttl: 5, data: { preference: 10, exchange: 'mail.shop' } },
      { type: 'CAA', name: 'Api.shop', ttl: 5, data: { flags: 0, tag: 'issue', value: 'ca.example', issuerCritical: false } },
    ],
    additionals: [{ type: 'OPT', name: '.', udpPayloadSize: 4096, flags: dnsPacket.DNSSEC_OK, options: [{ code: 'CLIENT_SUBNET', ip: '10.0.0.0' }] } as never],
  })
  const m = decode(b)
  t.equal(printMessage(m), 'NOERROR aa\nApi.shop. 5 A 10.0.0.1\nApi.shop. 5 MX 10 mail.shop.\nApi.shop. 5 CAA \\# 17 0005697373756563612e6578616d706c65')
  t.match(m.edns, { size: 4096, dnssec: true, version: 0 })
  t.equal(m.edns!.options[0]!.code, 8)
  t.end()
})

test('octets of an answer', (t) => {
  const b = write({
    flags: Flag.QR | Flag.AA | Flag.RD | Flag.RA,
    question: { ...question, name: nameOf('aPi.shop.svc.cluster.local') },
    answers: [rec('api.shop.svc.cluster.local', Type.A, '\x0a\x60\x08\x14')],
  })
  t.equal(
    b.toString('hex'),
    hex('1234 8580 0001 0001 0000 0000 03 615069 04 73686f70 03 737663 07 636c7573746572 05 6c6f63616c 00 0001 0001 c00c 0001 0001 00000005 0004 0a600814').toString('hex'),
    "the client's case, and a pointer at it",
  )
  t.end()
})

test('names are compressed in data only where old types have them', (t) => {
  const target = nameOf('web.example.org')
  const once = write({ answers: [rec('a.example.org', Type.CNAME, target), rec('b.example.org', Type.CNAME, target)] })
  t.equal(once.toString('latin1').split('example').length - 1, 1, 'CNAME')
  const srv = write({ answers: [rec('a.example.org', Type.SRV, srvData(0, 1, 2, target)), rec('b.example.org', Type.SRV, srvData(0, 1, 2, target))] })
  t.equal(srv.toString('latin1').split('example').length - 1, 3, 'SRV')
  t.same(
    decode(srv).answers.map((r) => r.data.slice(6)),
    [target, target],
  )
  t.end()
})

test('an answer that is too long gives up additional records first, then says TC and keeps whole records', (t) => {
  const answers = Array.from({ length: 40 }, (_, i) => rec('api.shop.svc.cluster.local', Type.A, `\x0a\0\0${String.fromCharCode(i)}`))
  const additional = Array.from({ length: 40 }, (_, i) => rec(`x${i}.cluster.local`, Type.A, '\x0a\0\0\x01'))
  const all = decode(write({ answers: answers.slice(0, 20), additional }, 512))
  t.equal(all.answers.length, 20)
  t.ok(all.additional.length > 0 && all.additional.length < 40)
  t.equal(all.flags & Flag.TC, 0)
  const cut = write({ answers, additional, edns: { size: 1232, dnssec: false } }, 512)
  const m = decode(cut)
  t.ok(cut.length <= 512)
  t.equal(m.flags & Flag.TC, Flag.TC)
  t.equal(m.answers.length, Math.floor((512 - 44 - 11) / 16), 'as many as fit')
  t.ok(m.edns !== undefined, 'and OPT still')
  t.equal(decode(write({ answers, additional }, 65_535)).flags & Flag.TC, 0)
  for (let limit = 60; limit < 900; limit++) {
    const b = write({ answers, authority: [rec('cluster.local', Type.NS, nameOf('ns.dns.cluster.local'))], additional, edns: { size: 1232, dnssec: false } }, limit)
    if (b.length > limit) t.fail(`${b.length} octets of at most ${limit}`)
    decode(b)
  }
  t.end()
})

test('65,535 octets', (t) => {
  const answers = Array.from({ length: 4092 }, () => rec('api.shop.svc.cluster.local', Type.A, '\x0a\0\0\x01'))
  const b = write({ answers })
  t.ok(b.length <= 65_535)
  t.equal(decode(b).answers.length, 4092)
  t.equal(decode(write({ answers: [...answers, ...answers] })).flags & Flag.TC, Flag.TC)
  t.end()
})

const ask = (text: string): string => {
  const b = hex(text)
  const got = receive(b, 0, b.length)
  if (got.kind === 'drop') return 'drop'
  if (got.kind === 'error') return ['NOERROR', 'FORMERR', 'SERVFAIL', 'NXDOMAIN', 'NOTIMP', 'REFUSED'][got.rcode] ?? `rcode ${got.rcode}`
  return `query ${printName(got.question.name)} ${typeName(got.question.type)}${got.edns === undefined ? '' : ` edns ${got.edns.size}${got.edns.dnssec ? ' do' : ''}`}`
}

test('what a server makes of what comes in', (t) => {
  const q = '01 61 00 0001 0001'
  for (const [what, octets, expected] of [
    ['nothing', '', 'drop'],
    ['eleven octets', '00'.repeat(11), 'drop'],
    ['a query', `1234 0100 0001 0000 0000 0000 ${q}`, 'query a. A'],
    ['a response', `1234 8180 0001 0000 0000 0000 ${q}`, 'drop'],
    ['a response with an unknown opcode', `1234 f800 0001 0000 0000 0000 ${q}`, 'drop'],
    ['STATUS', `1234 1000 0001 0000 0000 0000 ${q}`, 'NOTIMP'],
    ['NOTIFY', `1234 2000 0001 0000 0000 0000 ${q}`, 'NOTIMP'],
    ['an unknown opcode', `1234 7800 0001 0000 0000 0000 ${q}`, 'NOTIMP'],
    ['no question', '1234 0100 0000 0000 0000 0000', 'FORMERR'],
    ['two questions', `1234 0100 0002 0000 0000 0000 ${q} ${q}`, 'FORMERR'],
    ['a question that is not there', '1234 0100 0001 0000 0000 0000', 'FORMERR'],
    ['half a question', '1234 0100 0001 0000 0000 0000 01 61 00 0001', 'FORMERR'],
    ['a name cut off', '1234 0100 0001 0000 0000 0000 05 61', 'FORMERR'],
    ['a name that points at itself', '1234 0100 0001 0000 0000 0000 c00c 0001 0001', 'FORMERR'],
    ['octets after the end', `1234 0100 0001 0000 0000 0000 ${q} 00`, 'FORMERR'],
    ['a record that is not there', `1234 0100 0001 0000 0000 0001 ${q}`, 'FORMERR'],
    ['EDNS', `1234 0100 0001 0000 0000 0001 ${q} 00 0029 1000 00000000 0000`, 'query a. A edns 4096'],
    ['EDNS with DO', `1234 0100 0001 0000 0000 0001 ${q} 00 0029 1000 00008000 0000`, 'query a. A edns 4096 do'],
    ['EDNS with unknown flags', `1234 0100 0001 0000 0000 0001 ${q} 00 0029 1000 00007fff 0000`, 'query a. A edns 4096'],
    ['EDNS with an unknown option', `1234 0100 0001 0000 0000 0001 ${q} 00 0029 1000 00000000 0006 fde9 0002 abcd`, 'query a. A edns 4096'],
    ['EDNS version 1', `1234 0100 0001 0000 0000 0001 ${q} 00 0029 1000 00010000 0000`, 'rcode 16'],
    ['EDNS twice', `1234 0100 0001 0000 0000 0002 ${q} 00 0029 1000 00000000 0000 00 0029 1000 00000000 0000`, 'FORMERR'],
    ['EDNS with an owner', `1234 0100 0001 0000 0000 0001 ${q} 01 61 00 0029 1000 00000000 0000`, 'FORMERR'],
    ['EDNS with a broken option', `1234 0100 0001 0000 0000 0001 ${q} 00 0029 1000 00000000 0005 fde9 0002 ab`, 'FORMERR'],
    ['EDNS in the answer section', `1234 0100 0001 0001 0000 0000 ${q} 00 0029 1000 00000000 0000`, 'FORMERR'],
    ['class CH: whoever answers says that it is not ours', '1234 0100 0001 0000 0000 0000 01 61 00 0010 0003', 'query a. TXT'],
    ['class ANY: whoever answers says that it is not ours', '1234 0100 0001 0000 0000 0000 01 61 00 0001 00ff', 'query a. A'],
    ['class 0', '1234 0100 0001 0000 0000 0000 01 61 00 0001 0000', 'query a. A'],
    ['AXFR', '1234 0100 0001 0000 0000 0000 01 61 00 00fc 0001', 'REFUSED'],
    ['IXFR', '1234 0100 0001 0000 0000 0000 01 61 00 00fb 0001', 'REFUSED'],
    ['a question for OPT', '1234 0100 0001 0000 0000 0000 01 61 00 0029 0001', 'FORMERR'],
    ['type 0', '1234 0100 0001 0000 0000 0000 01 61 00 0000 0001', 'query a. TYPE0'],
    ['type 65535', '1234 0100 0001 0000 0000 0000 01 61 00 ffff 0001', 'query a. TYPE65535'],
    ['HTTP', Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n').toString('hex'), 'NOTIMP'],
  ] as const)
    t.equal(ask(octets), expected, what)
  t.end()
})

test('mutated messages end in an answer or an error of ours, and what is read can be written', (t) => {
  let seed = 20_261_123
  const random = (n: number): number => ((seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0) >>> 8) % n
  const models = [
    write({
      answers: [rec('a.example.org', Type.CNAME, nameOf('web.example.org')), rec('web.example.org', Type.SRV, srvData(0, 1, 2, nameOf('x.example.org')))],
      authority: [rec('example.org', Type.SOA, soaData({ mname: nameOf('ns.example.org'), rname: root, serial: 1, refresh: 2, retry: 3, expire: 4, minimum: 5 }))],
      edns: { size: 1232, dnssec: true, options: [{ code: 10, data: '12345678' }] },
    }),
    write({ flags: Flag.RD, edns: { size: 4096, dnssec: false } }),
    write({
      answers: [rec('a.b', Type.MX, u16(1) + nameOf('mx.a.b')), rec('a.b', Type.NAPTR, `${u16(1)}${u16(2)}\x01s\x03sip\x00${nameOf('sip.a.b')}`), rec('a.b', Type.TXT, txtData('x'.repeat(300)))],
    }),
  ]
  let read = 0
  for (let i = 0; i < 20_000; i++) {
    const model = models[random(models.length)]!
    const b = Buffer.from(model.subarray(0, random(4) === 0 ? random(model.length + 1) : model.length))
    for (let n = random(6); n >= 0 && b.length > 0; n--) b[random(b.length)] = random(3) === 0 ? [0, 0xc0, 0xff, 0x3f][random(4)]! : random(256)
    receive(b, 0, b.length)
    try {
      const m = decode(b)
      read++
      const out = Buffer.alloc(70_000)
      const end = encode({ id: m.id, flags: m.flags, rcode: m.rcode, question: m.questions[0], answers: m.answers, authority: m.authority, additional: m.additional, edns: m.edns }, out)
      if (m.questions.length <= 1 && end < 65_000 && (m.edns !== undefined || m.rcode < 16)) {
        const again = decode(out, 0, end)
        if (JSON.stringify([again.answers, again.authority, again.additional]) !== JSON.stringify([m.answers, m.authority, m.additional])) t.fail(`round trip of ${b.toString('hex')}`)
      }
    } catch (error) {
      if (!(error instanceof Malformed)) t.fail(`${String(error)} for ${b.toString('hex')}`)
    }
  }
  t.ok(read > 1000, `${read} could be read`)
  t.end()
})

test('numbers of types', (t) => {
  t.equal(typeNumber('aaaa'), 28)
  t.equal(typeNumber('TYPE65280'), 65_280)
  t.equal(typeNumber('TYPE65536'), undefined)
  t.equal(typeNumber('nonsense'), undefined)
  t.equal(Rcode.BADVERS, 16)
  t.end()
})
