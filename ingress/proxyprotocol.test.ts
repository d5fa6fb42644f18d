import { test } from 'tap'
import { readProxy, writeProxy } from './proxyprotocol.ts'

const read = (b: Buffer): string => {
  const said = readProxy(b, 0, b.length)
  return typeof said === 'string'
    ? said
    : `${said.end} ${said.peer === undefined ? '-' : `${said.peer.host} ${said.peer.port}`} ${said.local === undefined ? '-' : `${said.local.host} ${said.local.port}`}`
}
const sign = '0d0a0d0a000d0a515549540a'
const hex = (text: string): Buffer => Buffer.from(text, 'hex')

const rows: readonly (readonly [name: string, bytes: Buffer | string, said: string])[] = [
  ['version 1, IPv4', 'PROXY TCP4 192.0.2.1 198.51.100.2 1111 443\r\nGET', '44 192.0.2.1 1111 198.51.100.2 443'],
  ['version 1, IPv6', 'PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n', '40 2001:db8::1 1 2001:db8::2 2'],
  ['version 1, nobody knows', 'PROXY UNKNOWN ffff:f... 1 2\r\n', '29 - -'],
  ['no header', 'GET / HTTP/1.1\r\n', 'bad'],
  ['a port too large', 'PROXY TCP4 192.0.2.1 198.51.100.2 1111 70000\r\n', 'bad'],
  ['an octet too large', 'PROXY TCP4 192.0.2.256 198.51.100.2 1111 443\r\n', 'bad'],
  ['a word too many', 'PROXY TCP4 192.0.2.1 198.51.100.2 1111 443 x\r\n', 'bad'],
  ['a line that does not end', `PROXY TCP4 ${'1'.repeat(120)}`, 'bad'],
  ['version 2, IPv4, with a value behind the addresses', hex(`${sign}2111000fc0000201c633640204570 1bb010203`.replace(' ', '')), '31 192.0.2.1 1111 198.51.100.2 443'],
  ['version 2, IPv6', hex(`${sign}21210024${'20010db8000000000000000000000001'}${'20010db8000000000000000000000002'}00010002`), '52 2001:db8::1 1 2001:db8::2 2'],
  ['version 2, a proxy that speaks for itself', hex(`${sign}20000000`), '16 - -'],
  ['version 2, too short for its addresses', hex(`${sign}21110004c0000201`), 'bad'],
  ['version 3', hex(`${sign}31110000`), 'bad'],
]

void test('headers of both versions are read; what is no header is refused', async (t) => {
  for (const [name, bytes, said] of rows) t.equal(read(typeof bytes === 'string' ? Buffer.from(bytes) : bytes), said, name)
})

void test('a header that is cut anywhere is waited for', async (t) => {
  for (const [name, bytes, said] of rows) {
    if (said === 'bad') continue
    const b = typeof bytes === 'string' ? Buffer.from(bytes) : bytes
    const end = Number(said.split(' ')[0])
    for (let cut = 0; cut < end; cut++) if (read(b.subarray(0, cut)) !== 'more') t.fail(`${name}, cut at ${cut}: ${read(b.subarray(0, cut))}`)
  }
  t.pass('all of them')
})

void test('what is written is read again', async (t) => {
  const peer = { host: '192.0.2.1', port: 5 }
  const local = { host: '198.51.100.2', port: 6 }
  t.equal(read(writeProxy(peer, local)), '39 192.0.2.1 5 198.51.100.2 6')
  t.match(read(writeProxy({ host: '2001:db8::9', port: 5 }, local)), /2001:db8::9 5 ::ffff:198\.51\.100\.2 6/)
})
