"""Adapters: soardb as the vector store of other projects, and as tools of other agents.

target.py       a path, a URL or an open database and a name -> a collection, opened or made
fields.py       filters over metadata, as those projects write them -> filters of soardb
mmr.py          results that are near the query and not near each other
langchain.py    LangChain's VectorStore
llama_index.py  LlamaIndex's BasePydanticVectorStore
mcp.py          tools of the Model Context Protocol

LangChain, LlamaIndex, MCP hosts -> [integrations] -> the public methods of a collection

Nothing below imports this package, and nothing here is loaded by `import soardb`. Only public
methods of Database and Collection are called, so whatever has the same ones will do.
"""
