// Prints a JSON list of what AWS's own and the community's checkers say against a state machine definition (JSON file).
import { readFileSync } from "node:fs";
import validate from "asl-validator";
import jsonata from "jsonata";
import languageService from "amazon-states-language-service";

const text = readFileSync(process.argv[2], "utf8");
const definition = JSON.parse(text);
const problems = [];

const verdict = validate(definition, { checkArn: false, checkPaths: true });
if (!verdict.isValid) problems.push(...verdict.errors.map((error) => `asl-validator: ${JSON.stringify(error)}`));

const { getLanguageService, TextDocument } = languageService;
const document = TextDocument.create("file:///definition.asl.json", "asl", 1, text);
const service = getLanguageService({});
const diagnostics = await service.doValidation(document, service.parseJSONDocument(document));
for (const found of diagnostics) {
  problems.push(`language service: line ${found.range.start.line + 1}: ${found.message}`);
}

function checkExpressions(value, path) {
  if (typeof value === "string" && value.startsWith("{%")) {
    try {
      jsonata(value.slice(2, -2));
    } catch (error) {
      problems.push(`jsonata: ${path}: ${error.message}`);
    }
  } else if (value !== null && typeof value === "object") {
    for (const [key, inner] of Object.entries(value)) checkExpressions(inner, `${path}/${key}`);
  }
}
checkExpressions(definition.States, "States");
console.log(JSON.stringify(problems));
