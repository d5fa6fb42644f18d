import { execFile } from 'node:child_process'
import { access, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { basename, join } from 'node:path'
import { promisify } from 'node:util'
import { gunzipSync, zstdDecompressSync } from 'node:zlib'
import { cpio, folder, program, type Entry } from './cpio.ts'

const run = promisify(execFile)

/** A kernel ready to boot, in the user's cache. */
export interface GuestKernel {
  /** `6.1.0-56-amd64`. */
  readonly release: string
  /** The Debian package it came from, with its version. */
  readonly source: string
  readonly folder: string
  /** The uncompressed kernel: QEMU starts it without firmware (PVH) and without unpacking. */
  readonly image: string
  readonly initrd: string
  readonly modules: string
}

/** The QEMU to run, by machine; only x86-64 was tried. */
export const qemu = 'qemu-system-x86_64'

/** Debian's package that names the newest kernel. */
const meta = 'linux-image-amd64'

// Part of the cache's name: raise it when what is prepared changes.
const form = 3

/** What a machine needs and lacks for `lab vm`, with the command that installs it; undefined when nothing. */
export async function lacking(): Promise<string | undefined> {
  if (process.platform !== 'linux') return 'QEMU machines are started on Linux only'
  if (process.arch !== 'x64') return `the virtual machine is prepared for x86-64 only, this is ${process.arch}`
  const without: string[] = []
  for (const [program, from] of [
    [qemu, 'qemu-system-x86'],
    ['dpkg-deb', 'dpkg'],
    ['apt-get', 'apt'],
  ] as const)
    if (!(await onPath(program))) without.push(from)
  if (without.includes('apt') || without.includes('dpkg')) return 'the kernel comes as a Debian package: apt and dpkg are needed'
  return without.length === 0 ? undefined : `install QEMU first: apt-get install --no-install-recommends ${without.join(' ')}`
}

/** Whether `program` is found on the PATH. */
export async function onPath(program: string): Promise<boolean> {
  for (const dir of (process.env.PATH ?? '').split(':')) {
    try {
      await access(join(dir, program), 1)
      return true
    } catch {
      // the next one
    }
  }
  return false
}

/** Where prepared kernels live. */
export function cacheFolder(): string {
  return join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'switchyard', 'vm')
}

/**
 * The newest kernel of this Debian, downloaded and unpacked (never installed) at the first call; the same ones afterwards, without the network. `said` is told what takes long.
 * With `refresh`, asks apt whether there is a newer one.
 */
export async function guestKernel(said: (what: string) => void, refresh = false): Promise<GuestKernel> {
  const cache = cacheFolder()
  await mkdir(cache, { recursive: true, mode: 0o700 })
  const kept = join(cache, `kernel-${form}.json`)
  if (!refresh) {
    try {
      const kernel = JSON.parse(await readFile(kept, 'utf8')) as GuestKernel
      await access(kernel.image)
      await access(kernel.initrd)
      return kernel
    } catch {
      // Not yet, or cleaned away.
    }
  }
  const kernel = await prepare(cache, said)
  // Renamed into place: another call at the same time sees the whole file or none.
  const draft = `${kept}.${process.pid}`
  await writeFile(draft, JSON.stringify(kernel, undefined, 2))
  await rename(draft, kept)
  return kernel
}

async function prepare(cache: string, said: (what: string) => void): Promise<GuestKernel> {
  const { stdout } = await run('apt-cache', ['depends', '--no-recommends', meta])
  const name = /Depends: (linux-image-\S+)/.exec(stdout)?.[1]
  if (name === undefined) throw new Error(`apt knows no ${meta}: run apt-get update (as root) once, or check the sources`)
  const version = /^Version: (.*)$/m.exec((await run('apt-cache', ['show', '--no-all-versions', name])).stdout)?.[1] ?? 'unknown'
  const target = join(cache, `${name}_${version.replace(/[^\w.+~-]/g, '_')}-${form}`)
  const draft = await mkdtemp(join(cache, 'draft-'))
  try {
    said(`downloading ${name} ${version} and busybox-static (about 75 MB, once)`)
    // The sandbox user of apt cannot write into our folder; it would say so and go on as root.
    await run('apt-get', ['download', '-q', '-o', 'APT::Sandbox::User=root', name, 'busybox-static'], { cwd: draft }).catch((error: unknown) => {
      throw new Error(`apt-get download ${name} busybox-static`, { cause: error })
    })
    said('unpacking')
    for (const file of await readdir(draft)) if (file.endsWith('.deb')) await run('dpkg-deb', ['-x', file, '.'], { cwd: draft }).then(() => rm(join(draft, file)))
    const busybox = join(draft, 'busybox')
    await rename(await firstOf(join(draft, 'bin/busybox'), join(draft, 'usr/bin/busybox')), busybox)
    const lib = await firstOf(join(draft, 'lib/modules'), join(draft, 'usr/lib/modules'))
    const modules = join(draft, 'modules')
    await rename(lib, modules)
    const release = (await readdir(modules))[0]!
    await writeFile(join(draft, 'vmlinux'), await uncompressed(await readFile(join(draft, 'boot', `vmlinuz-${release}`))))
    // depmod wants lib/modules below its base.
    await mkdir(join(draft, 'base/lib'), { recursive: true })
    await rename(modules, join(draft, 'base/lib/modules'))
    await run(busybox, ['depmod', '-b', join(draft, 'base'), release]).catch(() => run('depmod', ['-b', join(draft, 'base'), release]))
    await writeFile(join(draft, 'initrd'), await initrd(join(draft, 'base/lib/modules', release), busybox))
    for (const rest of ['boot', 'bin', 'lib', 'usr', 'etc']) await rm(join(draft, rest), { recursive: true, force: true })
    await rm(target, { recursive: true, force: true })
    await rename(draft, target)
    return { release, source: `${name} ${version}`, folder: target, image: join(target, 'vmlinux'), initrd: join(target, 'initrd'), modules: join(target, 'base/lib/modules') }
  } catch (error) {
    await rm(draft, { recursive: true, force: true })
    throw error
  }
}

async function firstOf(...paths: string[]): Promise<string> {
  for (const path of paths) {
    try {
      await access(path)
      return path
    } catch {
      // the next one
    }
  }
  throw new Error(`the package holds none of ${paths.map((p) => basename(p)).join(', ')}`)
}

/** The ELF inside a bzImage, whatever it was packed with; the bzImage itself where nothing here unpacks it (it boots a second later). Places as in Documentation/arch/x86/boot.rst. */
async function uncompressed(image: Buffer): Promise<Buffer> {
  const payload = ((image[0x1f1] || 4) + 1) * 512 + image.readUInt32LE(0x248)
  const packed = image.subarray(payload, payload + image.readUInt32LE(0x24c) - 4) // the last word is the unpacked size
  try {
    const magic = packed.readUInt32BE(0)
    // busybox's xz does not know the filter for x86 code: the real one it is.
    const elf = magic === 0xfd377a58 ? await piped('xz', ['-dc'], packed) : magic === 0x28b52ffd ? zstdDecompressSync(packed) : magic >>> 8 === 0x1f8b08 ? gunzipSync(packed) : image
    if (elf.length > 4 && elf.readUInt32BE(0) === 0x7f454c46) return elf
  } catch {
    // Then packed.
  }
  return image
}

/** What `program` writes when fed `input`; nothing when it cannot. */
function piped(program: string, args: readonly string[], input: Buffer): Promise<Buffer> {
  return new Promise((resolve) => {
    const child = execFile(program, args, { encoding: 'buffer', maxBuffer: 512 * 1024 * 1024 }, (_error, stdout) => resolve(stdout))
    child.stdin!.on('error', () => {})
    child.stdin!.end(input)
  })
}

// What the first file system needs to reach this machine's files, and a way to talk.
const needed = ['virtio_pci', '9pnet_virtio', '9p', 'overlay', 'virtio_console', 'virtio_rng']

async function initrd(modules: string, busybox: string): Promise<Buffer> {
  const entries: Entry[] = ['bin', 'm', 'proc', 'sys', 'dev', 'low', 'up', 'new'].map(folder)
  entries.push(program('bin/busybox', await readFile(busybox)))
  const files = loadOrder(await readFile(join(modules, 'modules.dep'), 'utf8'), needed)
  for (const [i, file] of files.entries()) {
    const bytes = await readFile(join(modules, file))
    entries.push(
      program(
        `m/${String(i).padStart(3, '0')}-${basename(file).replace(/\.(xz|zst)$/, '')}`,
        file.endsWith('.xz') ? await piped(busybox, ['xz', '-dc'], bytes) : file.endsWith('.zst') ? zstdDecompressSync(bytes) : bytes,
      ),
    )
  }
  entries.push(program('init', Buffer.from(init)))
  return cpio(entries)
}

/** Module files in an order in which each finds what it depends on; modules built into the kernel are in no file. Exported for its test. */
export function loadOrder(modulesDep: string, names: readonly string[]): string[] {
  const dependencies = new Map<string, string[]>()
  const byName = new Map<string, string>()
  for (const line of modulesDep.split('\n')) {
    const colon = line.indexOf(':')
    if (colon < 0) continue
    const file = line.slice(0, colon)
    dependencies.set(
      file,
      line
        .slice(colon + 1)
        .split(' ')
        .filter((f) => f !== ''),
    )
    byName.set(
      basename(file)
        .replace(/\.ko(\.\w+)?$/, '')
        .replaceAll('-', '_'),
      file,
    )
  }
  const order = new Set<string>()
  const visit = (file: string): void => {
    if (order.has(file)) return
    for (const other of dependencies.get(file) ?? []) visit(other)
    order.add(file)
  }
  for (const name of names) {
    const file = byName.get(name)
    if (file !== undefined) visit(file)
  }
  return [...order]
}

// The machine's first program: the root is this machine's own, read-only, with a layer of memory on top. /start is added by each call (run.ts).
const init = `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs d /dev; mount -t proc p /proc; mount -t sysfs s /sys
for m in /m/*.ko; do insmod $m || echo "insmod $m failed"; done
for w in $(cat /proc/cmdline); do case $w in sy.modules=*) modules=\${w#*=};; esac; done
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,ro,cache=loose root /low || { echo 'cannot mount the root'; poweroff -f; }
mount -t tmpfs t /up; mkdir /up/u /up/w
mount -t overlay -o lowerdir=/low,upperdir=/up/u,workdir=/up/w o /new || { echo 'cannot mount the overlay'; poweroff -f; }
mount --move /dev /new/dev; mount --move /proc /new/proc; mount --move /sys /new/sys
mount -t tmpfs r /new/run; mkdir -p /new/dev/pts /new/dev/shm /new/run/vm/bin /new/lib/modules
mount -t devpts p /new/dev/pts; mount -t tmpfs t /new/dev/shm
mount -t cgroup2 c /new/sys/fs/cgroup 2>/dev/null
mount --bind /low$modules /new/lib/modules
cp /bin/busybox /start /new/run/vm/
# The kernel asks for modules through this program; not every machine has one.
[ -x /new/sbin/modprobe ] || { for b in modprobe insmod lsmod rmmod; do ln -s ../busybox /new/run/vm/bin/$b; done; echo /run/vm/bin/modprobe > /new/proc/sys/kernel/modprobe; }
exec switch_root /new /bin/sh /run/vm/start
`
