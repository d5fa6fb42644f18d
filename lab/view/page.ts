/** The page: whole, so that it works without any network but the loopback. What comes from the cluster is set as text, but for the picture, which the server drew. */
export const page = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Switchyard lab</title>
<style>
:root { color-scheme: light dark; --ink: #1c2530; --back: #fff; --faint: #d5dbe1; --mark: #2f7f79; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ebf0; --back: #12171d; --faint: #313c46; --mark: #6fc7c0; } }
body { font: 14px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--back); margin: 0; padding: 12px 20px; }
h1 { font-size: 18px; margin: 0 0 4px; } h2 { font-size: 15px; margin: 16px 0 4px; }
#state { color: var(--mark); }
#picture { overflow-x: auto; } #picture svg { max-width: 100%; height: auto; }
#picture g[data-key^="pod "], #picture g[data-key^="service "] { cursor: pointer; }
#picture g.chosen rect { stroke-width: 4; } #picture g:focus-visible { outline: 2px solid var(--mark); }
table { border-collapse: collapse; } td, th { text-align: left; font-weight: normal; padding: 1px 14px 1px 0; } th { color: var(--mark); } td.n { text-align: right; font-variant-numeric: tabular-nums; }
tr.first td { border-top: 1px solid var(--faint); }
pre { white-space: pre-wrap; border-left: 3px solid var(--faint); padding-left: 10px; margin: 4px 0; }
</style>
</head>
<body>
<h1>Switchyard lab <span id="lab"></span></h1>
<div id="state" role="status">connecting</div>
<div id="picture"></div>
<h2>Connections by endpoint</h2>
<table id="loads"><thead><tr><th>Service</th><th>Address</th><th>Endpoint</th><th>Pod</th><th>Live</th><th>New a second</th></tr></thead><tbody></tbody></table>
<h2>What becomes of a packet</h2>
<div id="hint">Click a Pod, then a Service.</div>
<pre id="explained"></pre>
<script>
'use strict'
const byId = (id) => document.getElementById(id)
let pod, service, drawn = '', services = []
function choose(key) {
  if (key.startsWith('pod ')) pod = key.slice(4)
  else if (key.startsWith('service ')) service = key.slice(8)
  else return
  mark()
  explain()
}
function mark() {
  for (const g of byId('picture').querySelectorAll('g[data-key]')) g.classList.toggle('chosen', g.dataset.key === 'pod ' + pod || g.dataset.key === 'service ' + service)
  byId('hint').textContent = pod === undefined ? 'Click a Pod, then a Service.' : service === undefined ? 'From ' + pod + ': click a Service.' : 'From ' + pod + ' to ' + service
}
async function explain() {
  if (pod === undefined || service === undefined) return
  const found = services.find((s) => s.name === service)
  const port = found && found.ports[0] ? found.ports[0].split('/')[0] : ''
  const to = 'service/' + service + ':' + port
  byId('explained').textContent = '…'
  const asked = pod + ' ' + service
  const answer = await fetch('/explain?' + new URLSearchParams({ from: 'pod/' + pod, to }))
  const text = await answer.text()
  if (asked === pod + ' ' + service) byId('explained').textContent = text
}
byId('picture').addEventListener('click', (event) => { const g = event.target.closest('g[data-key]'); if (g) choose(g.dataset.key) })
byId('picture').addEventListener('keydown', (event) => { const g = event.target.closest('g[data-key]'); if (g && event.key === 'Enter') choose(g.dataset.key) })
function cell(row, text, number) { const td = row.insertCell(); td.textContent = text; if (number) td.className = 'n' }
const events = new EventSource('/events')
events.onerror = () => { byId('state').textContent = 'the lab does not answer; trying again' }
events.onmessage = (event) => {
  const now = JSON.parse(event.data)
  byId('lab').textContent = now.lab
  byId('state').textContent = now.trouble || 'proxy mode ' + now.mode + '; ' + new Date(now.at).toLocaleTimeString()
  if (now.picture !== drawn) { drawn = now.picture; byId('picture').innerHTML = now.picture; mark() }
  services = now.services
  const body = byId('loads').tBodies[0]
  body.replaceChildren()
  for (const s of now.services) s.endpoints.forEach((e, i) => {
    const row = body.insertRow()
    if (i === 0) row.className = 'first'
    row.dataset.service = s.name
    cell(row, i === 0 ? s.name : '')
    cell(row, i === 0 ? s.address : '')
    cell(row, e.address + (e.ready ? '' : ' (not ready)'))
    cell(row, e.pod || '')
    cell(row, e.live, true)
    cell(row, e.rate.toFixed(1), true)
  })
}
</script>
</body>
</html>
`
