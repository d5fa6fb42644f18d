import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import tap, { test } from 'tap'
import { launcher } from '../launcher.ts'
import { browse, noBrowser } from '../../lib/testing/chromium.ts'
import { eventually, TestLab } from '../testing/lab.ts'

tap.setTimeout(600_000)

test('the page of a lab that runs shows its connections in every mode, and explains a packet', { timeout: 400_000, skip: noBrowser() }, async (t) => {
  const lab = new TestLab()
  t.teardown(() => lab.down())
  await lab.up('--nodes', '2')
  await lab.hello()
  const view = spawn(launcher, ['lab', 'view'], { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, SWITCHYARD_STATE: lab.state } })
  t.teardown(() => void view.kill())
  const url = await new Promise<string>((resolve) => createInterface({ input: view.stdout }).once('line', resolve))
  const page = await browse(url)
  t.teardown(() => page.close())
  await page.until('document.querySelectorAll("#picture g").length >= 6')
  for (const mode of ['iptables', 'nftables', 'userspace']) {
    t.equal((await lab.lab('mode', mode)).status, 0)
    await eventually('the Service answers', async () => (await lab.curl('http://hello.demo.svc.cluster.local'))[0]!.startsWith('hello from'))
    // Connections on which nobody says anything.
    const held = lab.lab('exec', 'demo/client', '--', 'sh', '-c', 'for i in 1 2 3 4; do sleep 25 | curl -s -m 25 -N telnet://hello.demo.svc.cluster.local:80 & done; wait')
    const live = '[...document.querySelectorAll(\'#loads tr[data-service="demo/hello"]\')].map((r) => Number(r.cells[4].textContent)).reduce((a, b) => a + b, 0)'
    await page.until(`${live} >= 4`)
    t.match(await page.value('document.getElementById("state").textContent'), mode)
    await held
  }
  const click = (key: string): Promise<unknown> => page.value(`document.querySelector('g[data-key="${key}"] rect').dispatchEvent(new MouseEvent('click', { bubbles: true }))`)
  await click('pod demo/client')
  await click('service demo/hello')
  await page.until('document.getElementById("explained").textContent.includes("demo/hello")')
  t.match(await page.value('document.getElementById("explained").textContent'), /10\.244\./)
  t.strictSame(page.complaints, [])
  t.ok(page.asked.every((asked) => asked.startsWith(url)))
})
