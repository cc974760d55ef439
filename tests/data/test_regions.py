import pytest

from longstrand.data.genomes import GenomeSource, open_genomes
from longstrand.data.regions import HoldOut, choose_holdout, heldout_regions, training_regions
from longstrand.errors import InputError, UsageError
from longstrand.genome.fasta import Genome
from longstrand.genome.intervals import Interval
from tests.data.window_toys import random_dna, write_fasta


@pytest.fixture
def genome(tmp_path):
    """Chr1: 300 known, 100 N, 200 known, 50 N (kept inside), 150 known, 20 known alone; chr2: 90 known."""
    dna = random_dna(1000, seed=1)
    chr1 = dna[:300] + "N" * 100 + dna[300:500] + "n" * 50 + dna[500:650] + "N" * 200 + dna[650:670]
    return Genome(write_fasta(tmp_path / "toy.fa", {"chr1": chr1, "chr2": dna[:90]}))


def places(regions):
    return [(chrom, int(start), int(end)) for chrom, start, end in zip(regions.chroms, regions.starts, regions.ends)]


def test_known_bases_without_long_gaps_and_scraps(genome):
    regions = training_regions(open_genomes([genome]), margin=10)
    assert places(regions) == [("chr1", 0, 300), ("chr1", 400, 800), ("chr2", 0, 90)]
    assert regions.num_bases == 790


def test_holdout_with_margins(genome):
    holdout = HoldOut(contigs=("chr2",), intervals=(Interval("chr1", 100, 140, "-"), Interval("chr1", 780, 800)))
    regions = training_regions(open_genomes([genome]), margin=10, holdout=holdout)
    assert places(regions) == [("chr1", 0, 90), ("chr1", 150, 300), ("chr1", 400, 770)]
    narrow = HoldOut(intervals=(Interval("chr1", 100, 140),), margin=0)
    assert ("chr1", 140, 300) in places(training_regions(open_genomes([genome]), margin=10, holdout=narrow))
    assert places(heldout_regions(open_genomes([genome]), holdout=holdout)) == [("chr1", 100, 140), ("chr2", 0, 90)]


def test_a_hold_out_over_a_gap(genome):
    inside = HoldOut(intervals=(Interval("chr1", 250, 450), Interval("chr1", 420, 500)))
    assert places(heldout_regions(open_genomes([genome]), holdout=inside)) == [("chr1", 250, 300), ("chr1", 400, 500)]
    assert heldout_regions(open_genomes([genome])).num_bases == 790


def test_one_holdout_for_each_genome(genome, tmp_path):
    other = Genome(write_fasta(tmp_path / "other.fa", {"chr1": random_dna(200, seed=2)}))
    regions = training_regions(open_genomes([genome, other]), margin=0, holdout={"toy": HoldOut(contigs=("chr1",))})
    assert places(regions) == [("chr2", 0, 90), ("chr1", 0, 200)]
    assert regions.genomes.tolist() == [0, 1]
    both = training_regions(open_genomes([genome, other]), margin=0, holdout=HoldOut(contigs=("chr1",)))
    assert places(both) == [("chr2", 0, 90)]


def test_names_are_made_unique(genome):
    opened = open_genomes([genome, GenomeSource(genome.path, weight=3.0), GenomeSource(genome, name="mine")])
    assert opened.names == ["toy", "toy#2", "mine"]
    assert opened.weights.tolist() == [1.0, 3.0, 1.0]


def test_choosing_a_holdout(tmp_path):
    contigs = {f"c{number}": random_dna(300 + 40 * number, seed=number) for number in range(12)}
    path = write_fasta(tmp_path / "many.fa", contigs)
    total = sum(map(len, contigs.values()))
    for fraction in (0.05, 0.1, 0.3):
        for seed in range(5):
            chosen = choose_holdout([path], fraction=fraction, seed=seed)["many"]
            held = sum(len(contigs[name]) for name in chosen.contigs) + sum(item.length for item in chosen.intervals)
            assert 0.7 * fraction < held / total < 1.3 * fraction
    single = write_fasta(tmp_path / "one.fa", {"chrom": random_dna(1000, seed=1)})
    intervals = {choose_holdout([single], fraction=0.1, seed=seed)["one"].intervals for seed in range(8)}
    assert intervals == {(Interval("chrom", 0, 100),), (Interval("chrom", 900, 1000),)}
    larger = choose_holdout([single], fraction=0.1, seed=0, min_bases=333)["one"]
    assert larger.intervals[0].length == 333


def test_errors(genome):
    with pytest.raises(ValueError, match="at least one genome"):
        open_genomes([])
    with pytest.raises(
        UsageError, match=r"held-out contig '2' is in none of the FASTA files \(did you mean 'chr2'\?\)"
    ):
        training_regions(open_genomes([genome]), margin=0, holdout=HoldOut(contigs=("2",)))
    with pytest.raises(UsageError, match=r"chr2:1-91 reaches past the end of 'chr2', which has 90 bases"):
        training_regions(open_genomes([genome]), margin=0, holdout=HoldOut(intervals=(Interval("chr2", 0, 91),)))
    with pytest.raises(UsageError, match=r"a hold-out names genome 'toi' \(did you mean 'toy'\?\)"):
        training_regions(open_genomes([genome]), margin=0, holdout={"toi": HoldOut()})
    with pytest.raises(UsageError, match="no base is left to train on"):
        training_regions(open_genomes([genome]), margin=0, holdout=HoldOut(contigs=("chr1", "chr2")))
    with pytest.raises(UsageError, match="no base is left to evaluate on"):
        heldout_regions(open_genomes([genome]), holdout=HoldOut(intervals=(Interval("chr1", 300, 400),)))
    with pytest.raises(InputError, match="too few to hold out 900"):
        choose_holdout([genome], fraction=0.1, seed=0, min_bases=900)
