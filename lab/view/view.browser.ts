import tap, { test } from 'tap'
import type { Node, Pod, Service } from '../../kube/objects.ts'
import { renderGraph } from '../graph.ts'
import { browse, noBrowser } from '../../lib/testing/chromium.ts'
import { serveView } from './server.ts'

tap.setTimeout(250_000)

const node = { apiVersion: 'v1', kind: 'Node', metadata: { name: 'node1' }, status: { conditions: [{ type: 'Ready', status: 'True' }], addresses: [] } } as unknown as Node
const pod = {
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'client', namespace: 'demo' },
  spec: { nodeName: 'node1', containers: [] },
  status: { podIP: '10.244.0.2', conditions: [{ type: 'Ready', status: 'True' }] },
} as unknown as Pod
const service = { apiVersion: 'v1', kind: 'Service', metadata: { name: 'hello', namespace: 'demo' }, spec: { clusterIP: '10.96.0.41', ports: [{ port: 80 }] } } as unknown as Service
const picture = renderGraph('Lab <b>default</b>', { nodes: [node], pods: [pod], services: [service], slices: [], ingresses: [] })
const state = (live: number): string =>
  JSON.stringify({
    lab: 'default',
    at: 0,
    mode: 'nftables',
    picture,
    services: [{ name: 'demo/hello', address: '10.96.0.41', ports: ['80'], endpoints: [{ address: '10.244.0.3:8080', pod: 'demo/<i>hello-1</i>', ready: true, live, rate: 1.5 }] }],
  })

test('the page shows the lab, follows it, and explains a packet', { timeout: 200_000, skip: noBrowser() }, async (t) => {
  const over = new AbortController()
  t.teardown(() => over.abort())
  const told = new Set<(json: string) => void>()
  const explained: string[] = []
  const source = {
    follow: (changed: (json: string) => void) => {
      told.add(changed)
      changed(state(1))
    },
    explain: async (from: string, to: string) => {
      explained.push(`${from} ${to}`)
      return `from ${from} to ${to}\n<script>document.title = 'not text'</script>`
    },
  }
  const port = await serveView(0, source, over.signal)
  const page = await browse(`http://127.0.0.1:${port}/`)
  t.teardown(() => page.close())
  const loads = 'document.querySelector("#loads tbody").innerText'
  await page.until(`${loads}.includes("10.244.0.3:8080")`)
  t.match(await page.value(loads), /demo\/hello\t10\.96\.0\.41\t10\.244\.0\.3:8080\tdemo\/<i>hello-1<\/i>\t1\t1\.5/, 'what the cluster says is text')
  t.match(await page.value('document.getElementById("state").innerText'), 'proxy mode nftables')
  for (const tell of told) tell(state(7))
  await page.until(`${loads}.includes("\\t7\\t")`)
  const click = (key: string): Promise<unknown> => page.value(`document.querySelector('g[data-key="${key}"] rect').dispatchEvent(new MouseEvent('click', { bubbles: true }))`)
  await click('pod demo/client')
  t.equal(await page.value('document.getElementById("hint").textContent'), 'From demo/client: click a Service.')
  await click('service demo/hello')
  await page.until('document.getElementById("explained").textContent.startsWith("from pod/demo/client to service/demo/hello:80")')
  t.strictSame(explained, ['pod/demo/client service/demo/hello:80'])
  t.equal(await page.value('document.title'), 'Switchyard lab')
  t.equal(await page.value('document.querySelectorAll("g.chosen").length'), 2)
  t.strictSame(
    page.asked.filter((url) => !url.startsWith(`http://127.0.0.1:${port}/`)),
    [],
    'nothing but the loopback is asked',
  )
  t.strictSame(page.complaints, [])
})
