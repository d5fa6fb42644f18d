// A program with a crew: says its port, serves until SIGTERM, drains for at most as many ms as its second argument says.
import { silent } from '../../../lib/log.ts'
import { aborted, untilSignal } from '../../../lib/lifecycle.ts'
import { chooseDriver } from '../../../lib/sockets/choose.ts'
import { workerFile } from '../../../lib/workers.ts'
import { Crew } from '../crew.ts'

const [, , wanted = 'auto', patience = '1000'] = process.argv
const signal = untilSignal()
const { driver } = await chooseDriver(wanted, () => import('../driver.ts'))
const crew = await Crew.open<string, string, 'echo'>({
  driver,
  file: workerFile(import.meta.url, './echoer.ts'),
  count: 2,
  sockets: { echo: { at: { host: '127.0.0.1', port: 0 } } },
  whole: () => '',
  log: silent,
})
await crew.ready()
process.stdout.write(`${crew.ports.echo}\n`)
await aborted(signal)
await crew.close(Number(patience))
await driver.close()
