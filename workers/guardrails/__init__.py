"""What is decided about words without any model: what may come in unremarked, what may go out.

- `links`: where a link in an answer may lead
- `commitments`: what an agent may not promise, by the wording in `commitments.yaml`
- `abuse`: spam, abuse and orders to the model in what a visitor writes, by the wording in `abuse.yaml`
- `wording`: versioned patterns by language
"""
