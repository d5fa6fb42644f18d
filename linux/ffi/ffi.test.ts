import { test } from 'tap'
import { readdirSync } from 'node:fs'
import { setTimeout as wait } from 'node:timers/promises'
import * as k from './constants.ts'
import { E, errnoName, checked } from './errno.ts'
import { Arena, callback, foreign, peek, syscalls, watch } from './ffi.ts'
import { selfTest } from './selftest.ts'
import { readSockaddr, writeSockaddr } from './sockaddr.ts'

const sys = syscalls()

test('the self-test finds nothing wrong here and leaves no descriptor open', async (t) => {
  const before = readdirSync('/proc/self/fd').length
  t.equal(selfTest(), undefined)
  t.equal(readdirSync('/proc/self/fd').length, before)
})

test('a length outside its arena never reaches the kernel', async (t) => {
  const arena = new Arena(4096)
  const [a, b] = checked2(sys.socketpair(k.AF_UNIX, k.SOCK_STREAM | k.SOCK_NONBLOCK, 0))
  for (const [from, to] of [
    [-1, 10],
    [0, arena.size + 1],
    [10, 9],
    [0, Number.NaN],
    [0, 1.5],
    [0, 2 ** 40],
  ] as const) {
    t.throws(() => sys.recv(a, arena, from, to, 0), RangeError, `recv into [${from}, ${to})`)
    t.throws(() => sys.send(a, arena, from, to, 0), RangeError, `send of [${from}, ${to})`)
  }
  t.throws(() => sys.recvmmsg(a, arena, arena.size - 64, 2, 0), RangeError, 'two headers where one fits')
  t.throws(() => sys.epollWait(a, arena, arena.size - k.epollEvent.size, 2, 0), RangeError, 'two events where one fits')
  sys.close(a)
  sys.close(b)
})

test('results below zero are errnos with names', async (t) => {
  const arena = new Arena(4096)
  const [a, b] = checked2(sys.socketpair(k.AF_UNIX, k.SOCK_STREAM | k.SOCK_NONBLOCK, 0))
  t.equal(sys.recv(a, arena, 0, 10, 0), -E.EAGAIN)
  t.equal(sys.close(b), 0)
  t.equal(sys.recv(a, arena, 0, 10, 0), 0, 'the end')
  t.equal(sys.send(a, arena, 0, 10, 0), -E.EPIPE, 'and no signal')
  sys.close(a)
  t.equal(errnoName(sys.close(a)), 'EBADF')
  t.throws(() => checked('close of nothing', -9), { code: 'EBADF', message: 'close of nothing: EBADF' })
})

test('arenas are found again by their buffers, and shared ones too', async (t) => {
  const arena = new Arena(100)
  t.equal(arena.size, 65_536)
  t.equal(Arena.of(arena.buffer.subarray(10, 20)), arena)
  t.equal(Arena.of(Buffer.alloc(10)), undefined)
  const shared = Arena.over(new SharedArrayBuffer(128))
  const event = checked('eventfd', sys.eventfd(5, k.EFD_NONBLOCK))
  t.equal(sys.read(event, shared, 8, 16), 8)
  t.equal(shared.buffer.readBigUInt64LE(8), 5n)
  sys.close(event)
})

test('addresses are written and read back', async (t) => {
  const b = Buffer.alloc(64, 255)
  for (const [host, port, length] of [
    ['10.1.2.3', 80, 16],
    ['fd00::7', 65_535, 28],
    ['::', 0, 28],
  ] as const) {
    t.equal(writeSockaddr(b, 3, host, port), length)
    t.same(readSockaddr(b, 3), { host, port })
  }
  t.equal(writeSockaddr(b, 0, '10.1.2.3', 80, true), 28, 'mapped')
  t.same(readSockaddr(b, 0), { host: '10.1.2.3', port: 80 })
  t.throws(() => writeSockaddr(b, 0, 'example.org', 80), { message: '"example.org" is no IP address' })
})

test('a connection over loopback: accept, options, half-close, splice through a pipe', async (t) => {
  const arena = new Arena(65_536)
  const listener = checked('socket', sys.socket(k.AF_INET, k.SOCK_STREAM | k.SOCK_NONBLOCK, 0))
  checked('bind', sys.bind(listener, arena, 0, writeSockaddr(arena.buffer, 0, '127.0.0.1', 0)))
  checked('listen', sys.listen(listener, 8))
  const length = checked('getsockname', sys.getsockname(listener, arena, 0, 28))
  const client = checked('socket', sys.socket(k.AF_INET, k.SOCK_STREAM, 0))
  checked('connect', sys.connect(client, arena, 0, length))
  const server = checked('accept4', sys.accept4(listener, k.SOCK_NONBLOCK, arena, 64, 92))
  t.equal(readSockaddr(arena.buffer, 64)?.host, '127.0.0.1')
  t.equal(sys.accept4(listener, 0, arena, 0, 0), -E.EAGAIN)
  t.equal(sys.setOption(server, k.IPPROTO_TCP, k.TCP_NODELAY, 1), 0)
  t.equal(sys.getOption(server, k.IPPROTO_TCP, k.TCP_NODELAY), 1)
  arena.buffer.write('hello', 100)
  t.equal(sys.send(client, arena, 100, 105, 0), 5)
  t.equal(sys.shutdown(client, k.SHUT_WR), 0)
  const [out, into] = checked2(sys.pipe(k.O_NONBLOCK))
  t.equal(sys.splice(server, into, 100, k.SPLICE_F_MOVE | k.SPLICE_F_NONBLOCK), 5)
  t.equal(sys.splice(server, into, 100, k.SPLICE_F_MOVE | k.SPLICE_F_NONBLOCK), 0, 'then the end')
  t.equal(sys.splice(out, server, 5, k.SPLICE_F_MOVE), 5, 'and back')
  t.equal(sys.recv(client, arena, 200, 300, 0), 5)
  t.equal(arena.buffer.toString('latin1', 200, 205), 'hello')
  for (const fd of [listener, client, server, out, into]) sys.close(fd)
})

test('libuv polls an epoll descriptor while timers go on, and an exception is told', async (t) => {
  const arena = new Arena(4096)
  const epoll = checked('epoll_create1', sys.epollCreate())
  const event = checked('eventfd', sys.eventfd(0, k.EFD_NONBLOCK))
  checked('epoll_ctl', sys.epollControl(epoll, k.EPOLL_CTL_ADD, event, k.EPOLLIN, event, 0))
  let rang = 0
  const told: unknown[] = []
  const handle = watch(
    epoll,
    () => {
      if (sys.epollWait(epoll, arena, 0, 8, 0) === 0) return
      sys.read(event, arena, 256, 264)
      if (++rang === 2) throw new Error('second')
    },
    (error) => told.push(error),
  )
  await wait(5)
  t.equal(rang, 0)
  for (let i = 1; i <= 3; i++) {
    arena.buffer.writeBigUInt64LE(1n, 300)
    sys.write(event, arena, 300, 308)
    await wait(20)
    t.equal(rang, i)
  }
  t.match(told, [{ message: 'second' }])
  handle.close()
  sys.close(event)
  sys.close(epoll)
})

test('other functions of this process can be bound and can call back', async (t) => {
  t.equal(foreign('abs', 'int', ['int'])(-7), 7)
  t.throws(() => foreign('no_such_function_here', 'int', []), /no_such_function_here/)
  const strerror = foreign('strerror', 'uintptr_t', ['int'])
  t.match(peek(strerror(2), 12).toString('latin1'), 'No such file')
  const arena = new Arena(4096)
  new Int32Array(arena.buffer.buffer, arena.buffer.byteOffset, 4).set([3, 1, 2, 0])
  const compare = callback('int', ['uintptr_t', 'uintptr_t'], (a, b) => peek(a, 4).readInt32LE() - peek(b, 4).readInt32LE())
  foreign('qsort', 'void', ['uintptr_t', 'size_t', 'size_t', 'uintptr_t'])(arena.pointer(0, 16), 4, 4, compare)
  t.same([...new Int32Array(arena.buffer.buffer, arena.buffer.byteOffset, 4)], [0, 1, 2, 3])
})

function checked2(pair: readonly [number, number] | number): readonly [number, number] {
  if (typeof pair === 'number') throw new Error(errnoName(pair))
  return pair
}
