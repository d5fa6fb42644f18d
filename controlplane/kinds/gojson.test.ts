import { test } from 'tap'
import { jsonTrouble } from './gojson.ts'

const cases: readonly (readonly [string | Uint8Array, string | undefined])[] = [
  ['{"a":[1,-2.5e3,true,null,"\\u00e4\\n"]}', undefined],
  [' [] ', undefined],
  ['', 'unexpected end of JSON input'],
  ['{"a":1', 'unexpected end of JSON input'],
  ['not', "invalid character 'o' in literal null (expecting 'u')"],
  ['{a:1}', "invalid character 'a' looking for beginning of object key string"],
  ['{"a" 1}', "invalid character '1' after object key"],
  ['{"a":1 2}', "invalid character '2' after object key:value pair"],
  ['[1 2]', "invalid character '2' after array element"],
  ['[1,]', "invalid character ']' looking for beginning of value"],
  ["{'a':1}", "invalid character '\\'' looking for beginning of object key string"],
  ['{} x', "invalid character 'x' after top-level value"],
  ['"\\x"', "invalid character 'x' in string escape code"],
  ['1.x', "invalid character 'x' after decimal point in numeric literal"],
  [Buffer.from([0x9e, 0x89]), "invalid character '\\u009e' looking for beginning of value"],
]

test('what is wrong with a JSON text is told in the words of Go', async (t) => {
  for (const [text, wanted] of cases) t.equal(jsonTrouble(text), wanted, String(text))
  for (const deep of ['[', '{"a":']) t.equal(jsonTrouble(deep.repeat(200_000)), 'unexpected end of JSON input', 'however deep')
})
