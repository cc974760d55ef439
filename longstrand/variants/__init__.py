"""What variants do to what a model says: alleles in, scores out, for any model and tokenizer.

- `scores.VariantScorer`: the scores of variants on a genome, each with its formula, sign and unit;
- `jobs.score_variants`, `jobs.score_variants_file`: whole VCF files and tables.
"""
