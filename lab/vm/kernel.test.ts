import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'tap'
import { cpio, folder, program } from './cpio.ts'
import { loadOrder, onPath } from './kernel.ts'

test('modules come after those they depend on, each once, and built-in ones not at all', async (t) => {
  const dep = [
    'kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/netfs/netfs.ko',
    'kernel/net/9p/9pnet.ko:',
    'kernel/fs/netfs/netfs.ko:',
    'kernel/net/9p/9pnet_virtio.ko: kernel/net/9p/9pnet.ko',
    'kernel/drivers/virtio/virtio-pci.ko.xz:',
    '',
  ].join('\n')
  t.same(loadOrder(dep, ['9pnet_virtio', '9p', 'virtio_pci', 'ext4']), [
    'kernel/net/9p/9pnet.ko',
    'kernel/net/9p/9pnet_virtio.ko',
    'kernel/fs/netfs/netfs.ko',
    'kernel/fs/9p/9p.ko',
    'kernel/drivers/virtio/virtio-pci.ko.xz',
  ])
})

test('an archive is what cpio takes apart', { skip: (await onPath('cpio')) ? false : 'cpio is not installed' }, async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'switchyard-cpio-'))
  execFileSync('cpio', ['-i', '--quiet', '--no-absolute-filenames'], { cwd: dir, input: cpio([folder('bin'), program('bin/a', Buffer.from('odd')), program('start', Buffer.alloc(4097, 7))]) })
  t.equal(readFileSync(join(dir, 'bin/a'), 'utf8'), 'odd')
  t.equal(statSync(join(dir, 'bin/a')).mode & 0o777, 0o755)
  rmSync(dir, { recursive: true })
})
