import { CorefileError } from '../../corefile.ts'
import { unknown, type Plugin } from '../plugin.ts'
import { parseView } from './expression.ts'

/** Serves a block only those whose question fits: split horizon by client. */
export const view: Plugin = {
  name: 'view',
  build: (lines, place) => {
    const line = lines[0]!
    const [name] = line.args
    if (lines.length > 1) throw new CorefileError(lines[1]!, 'view: one for a block')
    if (name === undefined) throw new CorefileError(line, 'view: expected its name')
    const all = line.block.map((option) => {
      if (option.name !== 'expr') unknown(line, option)
      return parseView(option.args.join(' '), option, place.env)
    })
    if (all.length === 0) throw new CorefileError(line, 'view: expected expr and an expression')
    place.options.view = { name, fits: (query) => all.every((fits) => fits(query)) }
    return []
  },
}
