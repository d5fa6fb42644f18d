import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'tap'

const root = join(import.meta.dirname, '../..')
const units = readdirSync(import.meta.dirname).filter((name) => name.endsWith('.service'))

test('there is a unit for each part', async (t) => {
  t.same(units.map((u) => u.replace(/^switchyard-|\.service$/g, '')).sort(), ['agent', 'controlplane', 'dns', 'ingress', 'proxy'])
})

for (const unit of units) {
  test(`${unit} starts a verb with flags that exist, is restarted, and keeps its files to itself`, async (t) => {
    const text = readFileSync(join(import.meta.dirname, unit), 'utf8')
    const words = /^ExecStart=\/usr\/local\/bin\/switchyard (.*)$/m.exec(text)?.[1]?.split(' ') ?? []
    const help = execFileSync(join(root, 'switchyard'), [words[0]!, '--help'], { encoding: 'utf8' })
    for (const flag of words.filter((w) => w.startsWith('--'))) t.match(help, new RegExp(`\\s${flag}[\\s,]`), `${words[0]} has ${flag}`)
    t.match(text, /^Restart=always$/m)
    t.match(text, /^UMask=0077$/m)
    // What systemd substitutes comes from the one file that says what this node is.
    const known = new Set(['NODE', 'NODE_IP', 'MODE', 'POD_CIDR', 'SERVICE_CIDR', 'CLUSTER_DNS'])
    for (const [, name] of words.join(' ').matchAll(/\$\{(\w+)\}/g)) t.ok(known.has(name!), `${name} stands in node.env`)
    if (!unit.includes('agent')) t.match(text, /^ProtectSystem=strict$/m)
  })
}
