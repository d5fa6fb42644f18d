import { test } from 'tap'
import { attributes, eachAttribute, F, messages, textOf, Writer } from './codec.ts'

test('a message is laid out as linux/netlink.h says', async (t) => {
  const w = new Writer(16)
  const start = w.message(0x0a0c, F.REQUEST | F.ACK, 7)
  w.word(2).text(1, 'sy').u32Be(3, 1)
  const list = w.nest(2)
  w.u16Be(1, 80)
    .data(2, Uint8Array.of(10, 0, 0))
    .unnest(list)
    .end(start)
  t.equal(
    w.written
      .toString('hex')
      .replace(/(.{8})/g, '$1 ')
      .trim(),
    '38000000 0c0a0500 07000000 00000000 02000000 07000100 73790000 08000300 00000001 14000280 06000100 00500000 07000200 0a000000',
  )
})

test('what is written is read back, whatever the lengths', async (t) => {
  const w = new Writer(8)
  for (let size = 0; size < 40; size++) {
    w.reset()
    const start = w.message(9, 0, size)
    w.data(5, new Uint8Array(size).fill(size)).u8(6, 200).u64Be(7, 0x1234_5678_9abc_def0n).text(8, 'x'.repeat(size)).end(start)
    const [m] = [...messages(w.written)]
    const has = attributes(m!.body)
    t.same(
      [m!.sequence, [...has.get(5)!], has.get(6)![0], has.get(7)!.readBigUInt64BE(), textOf(has.get(8))],
      [size, Array.from({ length: size }, () => size), 200, 0x1234_5678_9abc_def0n, 'x'.repeat(size)],
    )
  }
})

test('a reader stops at lengths that make no sense', async (t) => {
  const short = Buffer.from('02000100', 'hex')
  t.same([...eachAttribute(short)], [], 'an attribute shorter than its header')
  t.same([...eachAttribute(Buffer.from('ff00010041', 'hex'))], [], 'one longer than what is there')
  t.same([...messages(Buffer.from('ffffffff100000000000000000000000', 'hex'))], [], 'a message longer than the datagram')
})

test('an attribute too long for its 16 bits is an error, not a wrong length', async (t) => {
  const w = new Writer()
  const start = w.nest(1)
  w.data(2, new Uint8Array(40_000)).data(2, new Uint8Array(40_000))
  t.throws(() => w.unnest(start), RangeError)
})
