import { test } from 'tap'
import { contains, familyOf, network, nth, parseCidr, parseIp, sizeOf } from './ip.ts'

const addresses: readonly (readonly [text: string, canonical: string | undefined])[] = [
  ['10.0.0.1', '10.0.0.1'],
  ['010.001.0.1', '10.1.0.1'],
  ['::ffff:10.0.0.1', '10.0.0.1'],
  ['2001:DB8:0:0:0:0:0:1', '2001:db8::1'],
  ['::', '::'],
  ['1::', '1::'],
  ['::1', '::1'],
  ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
  ['2001:0:0:1:0:0:0:1', '2001:0:0:1::1'],
  ['64:ff9b::192.0.2.33', '64:ff9b::c000:221'],
  ['10.0.0', undefined],
  ['10.0.0.256', undefined],
  ['10.0.0.1.2', undefined],
  ['1:2:3:4:5:6:7', undefined],
  ['1:2:3:4:5:6:7::8', undefined],
  ['1::2::3', undefined],
  ['fe80::1%eth0', undefined],
  ['', undefined],
  ['12345::', undefined],
]

test('addresses are read leniently and written canonically', async (t) => {
  for (const [text, canonical] of addresses) t.equal(parseIp(text), canonical, text)
})

test('strict reading refuses what only old versions took', async (t) => {
  t.equal(parseIp('010.0.0.1', {}), undefined)
  t.equal(parseIp('10.0.0.1', {}), '10.0.0.1')
})

test('networks clear host bits, contain their own, and count', async (t) => {
  t.equal(parseCidr('10.1.2.3/8'), '10.0.0.0/8')
  t.equal(parseCidr('fd00::1/64'), 'fd00::/64')
  t.equal(parseCidr('10.0.0.0/33'), undefined)
  t.equal(parseCidr('10.0.0.0'), undefined)
  const n = network('10.96.0.0/12')!
  t.equal(nth(n, 10), '10.96.0.10')
  t.equal(nth(n, sizeOf(n)), undefined)
  t.ok(contains(n, parseIp('10.111.255.255')!))
  t.notOk(contains(n, parseIp('10.112.0.0')!))
  t.notOk(contains(n, parseIp('::1')!))
  t.ok(contains(network('0.0.0.0/0')!, parseIp('1.2.3.4')!))
  t.equal(familyOf('::1'), 6)
})
