import { createServer, type AddressInfo, type Socket } from 'node:net'
import { test } from 'tap'
import { ask, must } from './client.ts'
import { reader, send, type FrameKind } from './frames.ts'

test('frames are told whole, however the bytes are cut', async (t) => {
  const parts: Buffer[] = []
  const wire = { write: (b: Uint8Array) => parts.push(Buffer.from(b)) > 0 } as unknown as Socket
  send(wire, 'stdout', Buffer.from('one'))
  send(wire, 'stdin', new Uint8Array(0))
  send(wire, 'stderr', Buffer.alloc(70_000, 7))
  send(wire, 'exit', Buffer.from('3'))
  const all = Buffer.concat([Buffer.from('{"a":1}\n'), ...parts])
  for (const size of [1, 2, 3, 7, 4096, all.length]) {
    const told: [FrameKind | 'line', number][] = []
    const take = reader(
      (line) => told.push(['line', line.length]),
      (kind, bytes) => told.push([kind, bytes.length]),
    )
    for (let i = 0; i < all.length; i += size) take(all.subarray(i, i + size))
    t.same(
      told,
      [
        ['line', 7],
        ['stdout', 3],
        ['stdin', 0],
        ['stderr', 70_000],
        ['exit', 1],
      ],
      `${size} at a time`,
    )
  }
})

test('a question gets input in and both outputs and the status back; a machine that hangs up is an error', async (t) => {
  const server = createServer((socket) => {
    let asked: { readonly secret: string; readonly run?: readonly string[] } | undefined
    let heard = ''
    socket.on('error', () => {})
    socket.on(
      'data',
      reader(
        (line) => {
          asked = JSON.parse(line) as typeof asked
          if (asked!.secret !== 'right') socket.destroy()
        },
        (_kind, bytes) => {
          if (socket.destroyed) return
          if (bytes.length > 0) heard += bytes.toString()
          else {
            send(socket, 'stdout', Buffer.from(`${asked!.run!.join(' ')}: ${heard}`))
            send(socket, 'stderr', Buffer.from('oh'))
            send(socket, 'exit', Buffer.from(heard === 'fail' ? '4' : '0'))
          }
        },
      ),
    )
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const right = { port, secret: 'right' }
  const { status, stdout, stderr } = await ask(right, { run: ['cat', '-'] }, { stdin: Buffer.from('hello') })
  t.same([status, stdout.toString(), stderr.toString()], [0, 'cat -: hello', 'oh'])
  await t.rejects(must(right, { run: ['x'] }, { stdin: Buffer.from('fail') }), { message: 'oh' })
  await t.rejects(ask({ port, secret: 'wrong' }, { status: true }), /hung up|does not answer/)
  await new Promise((resolve) => server.close(resolve))
  await t.rejects(ask(right, { status: true }), /does not answer/)
})
