"""SimVP with differentiable sparse vector quantisation (Chen et al., arXiv 2312.03406)."""
