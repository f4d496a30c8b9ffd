"""What an answer links to: drawn or made, stored, served by the gateway.

- `diagram`: a graph as a model describes it, read strictly
- `mermaid`: as Mermaid source
- `layout`: where boxes and arrows go
- `svg`: drawn
- `rules`: what a drawing may hold, checked on each
- `images`: an image of it, where the policy names a model
- `attach`: the links at the end of an answer
"""
