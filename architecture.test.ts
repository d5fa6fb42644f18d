// The page ARCHITECTURE.md says in words who may import whom; this is the same as data.
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { test } from 'tap'

/** Files under `of` may import what `may` names of ours: a folder or a file's beginning. The first row that fits a file holds. */
const ours: readonly { readonly of: RegExp; readonly may: readonly string[] }[] = [
  { of: /^lib\//, may: ['lib/'] },
  { of: /^kube\//, may: ['kube/', 'lib/'] },
  { of: /^linux\//, may: ['linux/', 'lib/'] },
  { of: /^controlplane\//, may: ['controlplane/', 'kube/', 'lib/'] },
  { of: /^ingress\/(main|worker)\.ts$/, may: ['ingress/', 'kube/', 'lib/', 'linux/sockets/'] },
  { of: /^ingress\//, may: ['ingress/', 'kube/', 'lib/'] },
  { of: /^dns\/(main|worker)\.ts$/, may: ['dns/', 'kube/', 'lib/', 'linux/sockets/'] },
  { of: /^dns\/nodecache\//, may: ['dns/', 'kube/', 'lib/', 'linux/'] },
  { of: /^dns\//, may: ['dns/', 'kube/', 'lib/'] },
  { of: /^proxy\/(compile|table)\.ts$/, may: ['proxy/', 'kube/', 'lib/'] },
  { of: /^proxy\/(iptables|ipvs|nftables|userspace)\//, may: ['proxy/', 'lib/', 'linux/'] },
  { of: /^proxy\//, may: ['proxy/', 'kube/', 'lib/', 'linux/'] },
  { of: /^lab\/compare\//, may: ['lab/', 'kube/', 'lib/', 'linux/', 'proxy/testing/'] },
  { of: /^lab\//, may: ['lab/', 'kube/', 'lib/', 'linux/'] },
  {
    of: /^cli\//,
    may: [
      'cli/',
      'kube/',
      'lib/',
      'controlplane/main.ts',
      'proxy/main.ts',
      'proxy/explain.ts',
      'dns/main.ts',
      'dns/explain.ts',
      'ingress/main.ts',
      'ingress/explain.ts',
      'lab/main.ts',
      'lab/agent/main.ts',
      'lab/state.ts',
    ],
  },
]

/** Only files that match `only` may import a module that matches `module`. */
const modules: readonly { readonly module: RegExp; readonly only: RegExp }[] = [
  { module: /^koffi$/, only: /^linux\/ffi\// },
  { module: /^node:(net|tls|dgram)$/, only: /^(lib\/sockets\/node\/|lab\/|ingress\/http2\/)/ },
  { module: /^node:https?$/, only: /^(kube\/client\.ts$|controlplane\/api\/|lib\/status\.ts$|lab\/)/ },
  { module: /^node:http2$/, only: /^(controlplane\/api\/|ingress\/http2\/)/ },
  { module: /^node:child_process$/, only: /^(linux|lab|cli)\// },
  { module: /^node:worker_threads$/, only: /^lib\/workers\.ts$/ },
]

/** Files that compute and do nothing else. */
const pure = /(^|\/)(compile|render|match|diff|parse|print|trace|table)\.ts$|^ingress\/http1\/|^dns\/wire\//

/** Tests and what serves them may import anything they test or measure; nothing else imports them. */
const tests = /\.(test|e2e|vm|kubectl|browser|long)\.ts$|(^|\/)(testing|e2e|suite)\/|^linux\/fake\/|^bench\/|^packaging\/|^scripts\//
const mayUseTests = /^lab\/compare\//

const root = import.meta.dirname

/** Every import of every file, also of types, also by `import()`, ours as paths from the root. */
function* imports(): Generator<{ readonly file: string; readonly target: string; readonly own: boolean }> {
  for (const file of sources(root)) {
    // Comments and template texts hold words that look like imports only by accident; line starts and `import(` do not.
    const text = readFileSync(join(root, file), 'utf8')
    for (const m of text.matchAll(/^(?:import|export)\b[^'"`;]*?\bfrom\s+'([^']+)'|^import\s+'([^']+)'|\bimport\(\s*'([^']+)'/gm)) {
      const target = m[1] ?? m[2] ?? m[3]!
      const own = target.startsWith('.')
      yield { file, target: own ? relative(root, join(root, dirname(file), target)) : target, own }
    }
  }
}

function* sources(dir: string): Generator<string> {
  for (const entry of readdirSync(dir, { withFileTypes: true })) {
    if (entry.name === 'node_modules' || entry.name === 'dist' || entry.name.startsWith('.')) continue
    const path = join(dir, entry.name)
    if (entry.isDirectory()) yield* sources(path)
    else if (entry.name.endsWith('.ts')) yield relative(root, path)
  }
}

test('files import only what their folder may', async (t) => {
  let seen = 0
  for (const { file, target, own } of imports()) {
    seen++
    if (tests.test(file) || file === 'architecture.test.ts') continue
    if (own) {
      const row = ours.find((r) => r.of.test(file))
      if (row === undefined) t.fail(`${file} is in no folder that architecture.test.ts knows`)
      else if (!row.may.some((m) => target.startsWith(m))) t.fail(`${file} imports ${target}: ${row.of} may import only ${row.may.join(', ')}`)
      if (tests.test(target) && !mayUseTests.test(file) && !file.startsWith('lib/sockets/suite/')) t.fail(`${file} imports ${target}: nothing but tests imports what serves tests`)
    } else {
      const row = modules.find((r) => r.module.test(target))
      if (row !== undefined && !row.only.test(file)) t.fail(`${file} imports ${target}: only ${row.only} may`)
    }
    if (pure.test(file) && target.startsWith('node:') && target !== 'node:crypto') t.fail(`${file} imports ${target}: pure files import no node: module but node:crypto`)
  }
  t.ok(seen > 50, 'imports were found')
})

test('below compile nobody knows an EndpointSlice', async (t) => {
  for (const file of sources(root)) {
    if (/^proxy\/(iptables|ipvs|nftables|userspace)\//.test(file) && !tests.test(file)) t.notMatch(readFileSync(join(root, file), 'utf8'), /EndpointSlice/, file)
  }
  t.pass('looked')
})
