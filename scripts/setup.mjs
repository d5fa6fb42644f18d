// Sets up what `npm run demo` and `npm test` need: npm packages, then Debian packages. Plain JavaScript that any Node from 20 on runs.
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, readdirSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline/promises'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const forTests = process.argv.includes('--test')

/** What must be on the machine: a program (or a file), the Debian package that brings it, and what it is for. */
const needed = [
  { program: 'ip', package: 'iproute2', why: 'namespaces, addresses, routes' },
  { program: 'iptables', package: 'iptables', why: 'iptables mode' },
  { program: 'nft', package: 'nftables', why: 'nftables and userspace modes' },
  { program: 'ipset', package: 'ipset', why: 'iptables mode' },
  { program: 'conntrack', package: 'conntrack', why: 'looking at connections' },
  { program: 'unshare', package: 'util-linux', why: 'the lab' },
  { program: 'sysctl', package: 'procps', why: 'the lab' },
  { program: 'curl', package: 'curl', why: 'the demo' },
]
const neededForTests = [
  { program: 'dig', package: 'dnsutils', why: 'DNS tests' },
  { program: 'tcpdump', package: 'tcpdump', why: 'captures' },
  { program: 'ping', package: 'iputils-ping', why: 'lab tests' },
  { program: 'openssl', package: 'openssl', why: 'TLS tests' },
  { program: 'qemu-system-x86_64', package: 'qemu-system-x86', why: 'a kernel with IPVS', arch: 'x64' },
  { program: 'qemu-system-aarch64', package: 'qemu-system-arm', why: 'a kernel with IPVS', arch: 'arm64' },
  { file: '/bin/busybox', package: 'busybox-static', why: 'a kernel with IPVS' },
  { program: 'cpio', package: 'cpio', why: 'a kernel with IPVS' },
  { program: 'depmod', package: 'kmod', why: 'a kernel with IPVS' },
  { program: 'xz', package: 'xz-utils', why: 'a kernel with IPVS' },
  { program: 'wrk', package: 'wrk', why: 'load for lab compare' },
]
/** Without these some tests say why they are skipped; Ubuntu, for one, has Chromium only as a snap. */
const wantedForTests = [{ program: 'chromium', or: ['google-chrome', 'google-chrome-stable', 'chromium-browser'], package: 'chromium', why: 'pages in a real browser' }]

await npmPackages()
await debianPackages(forTests ? [...needed, ...neededForTests] : needed)
if (forTests) wantedPackages(wantedForTests)

/** `npm ci`, only when the lock file is newer than what is installed. */
async function npmPackages() {
  const lock = join(root, 'package-lock.json')
  const installed = join(root, 'node_modules', '.package-lock.json')
  if (existsSync(installed) && statSync(installed).mtimeMs >= statSync(lock).mtimeMs) return
  console.log('switchyard: installing npm packages (npm ci)')
  const done = spawnSync('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], { cwd: root, stdio: 'inherit', env: { ...process.env, npm_config_ignore_scripts: 'true' } })
  if (done.status !== 0) fail(`npm ci ended with status ${done.status ?? done.signal}; run it by hand to see why`)
}

async function debianPackages(list) {
  const missing = list.filter((n) => (n.arch === undefined || n.arch === process.arch) && !(n.program === undefined ? existsSync(n.file) : onPath(n.program)))
  if (missing.length === 0) return
  const names = [...new Set(missing.map((n) => n.package))]
  const command = `apt-get install -y --no-install-recommends ${names.join(' ')}`
  const words = missing.map((n) => `${n.package} (${n.why})`).join(', ')
  if (!onPath('apt-get')) fail(`missing: ${words}. This machine has no apt; install these with its own package manager.`)
  if (process.getuid?.() !== 0) fail(`missing: ${words}. Run this once, then start again:\n  sudo ${command}`)
  console.log(`switchyard: installing Debian packages: ${words}`)
  if (process.stdin.isTTY && process.stdout.isTTY && process.env.CI !== 'true') {
    const ask = createInterface({ input: process.stdin, output: process.stdout })
    const said = (await ask.question(`Run "${command}"? [Y/n] `)).trim().toLowerCase()
    ask.close()
    if (said !== '' && !said.startsWith('y')) fail(`not installed; the command is:\n  ${command}`)
  }
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  const lists = '/var/lib/apt/lists'
  if (!existsSync(lists) || !readdirSync(lists).some((f) => f.endsWith('_Packages') || f.includes('_Packages.'))) run('apt-get', ['update', '-q'], env)
  const install = ['install', '-y', '--no-install-recommends', '-q', ...names]
  if (spawnSync('apt-get', install, { env, stdio: ['ignore', 'ignore', 'ignore'] }).status !== 0) {
    // A list that is out of date names packages that are gone.
    run('apt-get', ['update', '-q'], env)
    run('apt-get', install, env)
  }
}

/** Installs what tests can do without, where it is to be had and nobody has to be asked. */
function wantedPackages(list) {
  const missing = list.filter((n) => ![n.program, ...n.or].some(onPath))
  if (missing.length === 0 || process.getuid?.() !== 0 || !onPath('apt-get') || (process.stdin.isTTY && process.env.CI !== 'true')) return
  for (const { package: name, why } of missing) {
    if (!/^  Candidate: (?!\(none\)|.*snap)/m.test(spawnSync('apt-cache', ['policy', name], { encoding: 'utf8', env: { ...process.env, LC_ALL: 'C' } }).stdout ?? '')) continue
    console.log(`switchyard: installing the Debian package ${name} (${why})`)
    const { status } = spawnSync('apt-get', ['install', '-y', '--no-install-recommends', '-q', name], { env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }, stdio: 'ignore' })
    if (status !== 0) console.log(`switchyard: ${name} could not be installed; tests that need it are skipped`)
  }
}

function run(program, args, env) {
  try {
    execFileSync(program, args, { env, stdio: ['ignore', 'pipe', 'pipe'] })
  } catch (error) {
    fail(`${program} ${args.join(' ')} failed:\n${error.stderr}`)
  }
}

function onPath(program) {
  return [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin'].some((dir) => dir !== '' && existsSync(join(dir, program)))
}

function fail(why) {
  console.error(`switchyard: ${why}`)
  process.exit(1)
}
